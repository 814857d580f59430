from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from edgefusion.bundle import Bundle
from edgefusion.config import ChannelRecipe, CompareConfig, SplitConfig, TrainConfig
from edgefusion.data.readers import read_labels
from edgefusion.data.splits import read_splits
from edgefusion.data.study import Study
from edgefusion.errors import UsageError
from edgefusion.training import crossval
from edgefusion.training.crossval import compare

_CONFIG = CompareConfig(
    models=("unet", "edgefusion-unet"),
    recipe=ChannelRecipe(("raw", "dpad", "edges"), height=32, width=48),
    train=TrainConfig(epochs=1, batch_size=6, precision="32"),
    split=SplitConfig(folds=2),
)


@pytest.fixture(scope="module")
def run(discs: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "run"
    assert compare(discs, output, _CONFIG) == output / "report.html"
    return output


def test_every_labelled_frame_is_judged_once_by_each_network(discs: Study, run: Path) -> None:
    frames = pd.read_csv(run / "frames.csv", dtype={"patient_id": str})
    assert len(frames) == 2 * 36
    for _, rows in frames.groupby("model"):
        assert sorted(rows["frame_id"]) == sorted(discs.frames["frame_id"])
    judged = {split.name: set(split.validation) for split in read_splits(run / "splits.json")}
    assert all(row.patient_id in judged[row.fold] for row in frames.itertuples())


def test_no_network_was_trained_on_a_patient_that_judges_it(run: Path) -> None:
    for split in read_splits(run / "splits.json"):
        for model in _CONFIG.models:
            bundle = Bundle.load(run / model / split.name)
            assert set(bundle.trained_on) == set(split.train)
            assert not set(bundle.trained_on) & set(split.validation)


def test_baselines_see_the_raw_frame_and_edgefusion_the_recipe(run: Path) -> None:
    assert Bundle.load(run / "unet" / "fold_0").recipe.channels == ("raw",)
    assert Bundle.load(run / "edgefusion-unet" / "fold_0").recipe == _CONFIG.recipe


def test_predictions_are_kept_at_the_frames_own_size_and_agree_with_the_scores(discs: Study, run: Path) -> None:
    row = pd.read_csv(run / "frames.csv").iloc[0]
    found = read_labels(run / row["model"] / row["fold"] / "predictions" / f"{row['frame_id']}.png")
    truth = discs.mask(row["frame_id"])
    assert truth is not None
    assert found.shape == truth.shape
    assert np.count_nonzero(found) == row["predicted_area"]


def test_the_report_and_its_numbers_are_there(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert summary["models"] == list(_CONFIG.models)
    costs = json.loads((run / "costs.json").read_text())
    assert all(cost["ms_per_frame"] > 0 and cost["multiply_adds"] > 0 for cost in costs.values())
    page = (run / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#)|url\((?!data:)', page)


def test_a_run_goes_on_where_it_stopped(discs: Study, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (run / "frames.csv").read_text()
    kept = (run / "edgefusion-unet" / "fold_0" / "metrics.csv").stat().st_mtime_ns
    (run / "unet" / "fold_1" / "metrics.csv").unlink()
    trained: list[str] = []
    real = crossval.run_unit
    monkeypatch.setattr(crossval, "run_unit", lambda *a: (trained.append(f"{a[3][0]} {a[3][1].name}"), real(*a)))
    compare(discs, run, _CONFIG)
    assert trained == ["unet fold_1"]
    assert (run / "edgefusion-unet" / "fold_0" / "metrics.csv").stat().st_mtime_ns == kept
    assert (run / "frames.csv").read_text() == before


def test_a_run_from_before_an_option_was_there_goes_on(discs: Study, run: Path) -> None:
    settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    del settings["train"]["negatives"], settings["network"]
    (run / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    compare(discs, run, _CONFIG)
    with pytest.raises(UsageError, match="other settings \\(train\\)"):
        compare(discs, run, replace(_CONFIG, train=replace(_CONFIG.train, negatives=0.25)))


def test_a_run_from_before_batches_were_reshuffled_is_another_run(discs: Study, run: Path) -> None:
    as_it_is = (run / "config.yaml").read_text(encoding="utf-8")
    settings = yaml.safe_load(as_it_is)
    del settings["train"]["reshuffle"]
    (run / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    with pytest.raises(UsageError, match="other settings \\(train\\)"):
        compare(discs, run, _CONFIG)
    (run / "config.yaml").write_text(as_it_is, encoding="utf-8")


def test_other_settings_do_not_mix_into_a_run(discs: Study, run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="other settings \\(flip_averaging\\)"):
        compare(discs, run, replace(_CONFIG, flip_averaging=True))
    (tmp_path / "thesis.doc").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        compare(discs, tmp_path, _CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"models": ("unet", "net")}, "no model called 'net'"), ({"recipe": ChannelRecipe(("raw", "edge"))}, "'edges'")],
)
def test_unknown_names_are_refused_before_any_work(
    discs: Study, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        compare(discs, tmp_path / "run", replace(_CONFIG, **change))  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_trainings_side_by_side_give_the_same_run(discs: Study, run: Path, tmp_path: Path) -> None:
    compare(discs, tmp_path / "run", replace(_CONFIG, models=("unet",)), jobs=2)
    alone = pd.read_csv(run / "frames.csv").query("model == 'unet'").reset_index(drop=True)
    side = pd.read_csv(tmp_path / "run" / "frames.csv")
    assert np.allclose(alone["dice"], side["dice"], atol=1e-4)


def test_every_seed_trains_its_own_network_on_the_same_patients(discs: Study, tmp_path: Path) -> None:
    config = replace(_CONFIG, models=("unet", "edgefusion-unet"), seeds=(0, 7), split=SplitConfig(folds=1))
    config = replace(config, network={"dropout": 0.0})
    report = compare(discs, tmp_path / "run", config)
    splits = read_splits(tmp_path / "run" / "splits.json")
    assert [split.name for split in splits] == ["holdout_seed_0", "holdout_seed_7"]
    assert splits[0].validation == splits[1].validation
    frames = pd.read_csv(tmp_path / "run" / "frames.csv")
    judged = len(splits[0].validation_frames(discs))
    assert len(frames) == 2 * 2 * judged
    first, second = (frames[(frames["model"] == "unet") & (frames["fold"] == split.name)] for split in splits)
    assert first["presence"].tolist() != second["presence"].tolist()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    mean = next(m["value"] for m in summary["measures"] if m["model"] == "unet" and m["measure"] == "dice_all")
    assert mean == pytest.approx((first["dice"].mean() + second["dice"].mean()) / 2)
    assert "with the seeds 0, 7" in report.read_text()
    assert Bundle.load(tmp_path / "run" / "edgefusion-unet" / "holdout_seed_7").model_args["dropout"] == 0.0
    with pytest.raises(UsageError, match="named twice"):
        compare(discs, tmp_path / "other", replace(config, seeds=(1, 1)))


def test_networks_start_from_the_weights_of_another_run(other_discs: Study, run: Path, tmp_path: Path) -> None:
    config = replace(_CONFIG, train=replace(_CONFIG.train, learning_rate=0.0), split=SplitConfig(folds=1))
    start = replace(config, pretrained=str(run))
    compare(other_discs, tmp_path / "run", start)
    for model in _CONFIG.models:
        before, after = Bundle.load(run / model / "fold_0"), Bundle.load(tmp_path / "run" / model / "holdout")
        for (name, old), new in zip(before.model.named_parameters(), after.model.parameters(), strict=True):
            assert old.equal(new), name  # nothing was learnt at this rate, so all is as it was
        assert [origin.study for origin in after.history()] == ["discs", "other"]
        assert after.history()[0].trained_on == before.trained_on
    refused = {
        "no trained resunet to start from": replace(start, models=("resunet",)),
        "cannot start from it": replace(start, models=("edgefusion-unet",), recipe=ChannelRecipe(("raw",), 32, 48)),
        "another size": replace(start, network={"widths": (8, 8, 8, 8)}, models=("edgefusion-unet",)),
        "no argument 'dropuot'": replace(start, network={"dropuot": 1.0}),
        "no fusion 'attnetion'": replace(start, network={"fusion": "attnetion"}),
    }
    for number, (message, settings) in enumerate(refused.items()):
        with pytest.raises(UsageError, match=message):
            compare(other_discs, tmp_path / str(number), settings)


def test_who_is_judged_was_not_trained_on_before(discs: Study, run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="trained on patients who are to be judged"):
        compare(discs, tmp_path / "run", replace(_CONFIG, models=("unet",), pretrained=str(run)))


def test_another_start_is_another_run(other_discs: Study, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "start")
    config = replace(_CONFIG, models=("unet",), split=SplitConfig(folds=1), pretrained=str(tmp_path / "start"))
    compare(other_discs, tmp_path / "run", config)
    bundle = Bundle.load(tmp_path / "start" / "unet" / "fold_0")
    next(bundle.model.parameters()).data += 1
    bundle.save(tmp_path / "start" / "unet" / "fold_0")
    with pytest.raises(UsageError, match="other settings \\(pretrained_sha256\\)"):
        compare(other_discs, tmp_path / "run", config)
