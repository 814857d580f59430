"""The scripts in ``benchmarks`` that make the published tables."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from sklearn.metrics import roc_auc_score

from edgefusion.bundle import Bundle
from edgefusion.config import ChannelRecipe
from edgefusion.data.phantom.study import make_phantom_study
from edgefusion.data.splits import Split, write_splits
from edgefusion.data.study import Study
from edgefusion.evaluation.report import write_report
from edgefusion.evaluation.run import read_run
from edgefusion.models.zoo import build_model

FOLDER = Path(__file__).parents[2] / "benchmarks"


def script(name: str) -> ModuleType:
    file = FOLDER / f"{name}.py"
    if not file.is_file():
        pytest.skip("not a source tree")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_kept_names_no_folder_of_this_machine(make_finished_run: Callable[..., Study], tmp_path: Path) -> None:
    before = str(tmp_path / "pretraining")
    study = make_finished_run(tmp_path, ["edgefusion-unet", "unet"], folds=1, seeds=(0, 1), pretrained=before)
    write_report(tmp_path / "run", study)
    run, kept = read_run(tmp_path / "run"), tmp_path / "kept"
    script("comparison_table").keep(run, kept)
    assert {file.name for file in kept.iterdir()} == {
        *("config.yaml", "env.json", "splits.json", "costs.json", "frames.csv", "summary.json"),
        *("log-edgefusion-unet.csv", "log-unet.csv"),
    }
    for file in kept.iterdir():
        assert not re.search(r"(?<![\w.<])/\w", file.read_text()), file.name
    settings = yaml.safe_load((kept / "config.yaml").read_text())
    assert settings == {
        **{key: value for key, value in run.config.items() if key != "study"},
        "pretrained": "pretraining",
    }


def test_missed_frames_are_a_mean_of_seeds(make_finished_run: Callable[..., Study], tmp_path: Path) -> None:
    make_finished_run(tmp_path, ["unet"], folds=1, seeds=(0, 1))
    run = read_run(tmp_path / "run")
    judged = (run.frames["true_area"] > 0) & (run.frames["fold"] == "holdout_seed_1")
    run.frames.loc[run.frames.index[judged][0], "predicted_area"] = 0
    assert script("comparison_table").measures(run, "nerve").endswith(" | 0.5 |")


def test_the_ablation_asks_for_its_reference(
    finished_run: tuple[Path, Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ablation = script("ablation")
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / "full.yaml").write_text("# all\n")
    (configs / "less.yaml").write_text("# something less\n")
    for name in ("full", "less"):
        shutil.copytree(finished_run[0], tmp_path / name)
        frames = read_run(tmp_path / name).frames
        frames[frames["model"] == "unet"].to_csv(tmp_path / name / "frames.csv", index=False)
    (tmp_path / "less" / "report.html").touch()
    assert ablation.table(tmp_path, configs) == "full is not trained yet: no table."
    (tmp_path / "full" / "report.html").touch()
    assert "| something less |" in ablation.table(tmp_path, configs)
    # A complete run is not taken for the one that was asked for: `compare` judges that.
    calls: list[list[str]] = []
    monkeypatch.setattr(ablation.subprocess, "run", lambda command, **_: calls.append(command))
    given = SimpleNamespace(study=tmp_path, output=tmp_path, configs=configs, jobs=1, seeds="0", precision=None)
    ablation.train("less", given)
    assert str(configs / "less.yaml") in calls[0]
    assert "--train.precision" not in calls[0]
    given.precision = "32"
    ablation.train("less", given)
    assert calls[1][calls[1].index("--train.precision") + 1] == "32"


def test_presence_is_calibrated_by_those_who_choose_and_judged_on_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, kinds = np.random.default_rng(0), np.repeat(["positive", "cut beside it"], 2000)
    # Two groups whose logits differ by 2 in the mean, with a variance of 1: 2x is the true log-likelihood ratio.
    x = np.where(kinds == "positive", 1.0, -1.0) + rng.standard_normal(4000)
    sure = 1 / (1 + np.exp(-(3 * x + 4)))
    frames = pd.DataFrame({"kind": kinds, "patient_id": "a", "maximum": sure, "head": sure})
    frames.to_csv(tmp_path / "scores.csv", index=False)
    calibration = script("presence_calibration")
    (name,) = (name for name in calibration.scalings(frames, "head") if "offset" in name)
    temperature, offset = calibration.scalings(frames, "head")[name]
    prior = np.log(0.41 / 0.59)
    assert temperature == pytest.approx(3 / 2, rel=0.1)
    assert offset == pytest.approx(prior - 4 / temperature, abs=0.2)
    monkeypatch.setattr("sys.argv", ["", *[str(tmp_path / "scores.csv")] * 2, "--picture", str(tmp_path / "a.png")])
    calibration.main()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if "presence head" in line]
    errors = [float(row[3]) for row in rows]
    assert len(rows) == 3
    assert errors[0] > 0.1
    assert errors[2] < 0.03
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_post_processing_is_judged_on_patients_that_were_held_out(tmp_path: Path) -> None:
    measuring, tables = script("postprocessing"), script("postprocessing_table")
    study = make_phantom_study(tmp_path / "necks", 6, 3, size=(64, 96))
    torch.manual_seed(0)
    fold = Split("holdout", ("p00",), ("p01", "p02", "p03", "p04", "p05"))
    # A network that was never trained finds something just below the prior.
    bundle = Bundle(build_model("unet", 1, 1), "unet", ChannelRecipe(("raw",), 32, 48), study.labels)
    bundle.thresholds, bundle.trained_on = {"mask": 0.05, "presence": 0.0}, list(fold.train)
    run = tmp_path / "run"
    bundle.save(run / "unet" / "holdout")
    write_splits(run / "splits.json", [fold])
    names = ["none", "largest", "area 1", "shapes 2"]
    frames = measuring.judge(study, [run], ["unet"], [study], names)
    assert set(frames["patient_id"][frames["kind"] == "positive"]) <= set(fold.validation)
    assert set(frames["combination"]) == set(names)
    regions = frames.groupby("combination")["false_regions"].sum()
    assert regions["largest"] < regions["none"]
    text = tables.table(frames)
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| largest")] == ["| largest"] * 3


def test_steps_of_a_combination() -> None:
    measuring = script("postprocessing")
    steps = measuring.steps_of("area ½, largest, holes", 0.1)
    assert (steps.smallest_area, steps.largest_region, steps.fill_holes) == (0.05, True, True)
    assert measuring.components_of("shapes 40, largest") == 40
    names = measuring.combinations()
    assert len({(measuring.steps_of(name, 0.1), measuring.components_of(name)) for name in names}) == len(names)


def test_a_false_region_does_not_meet_the_truth() -> None:
    found = np.zeros((8, 8), bool)
    found[0, 0] = found[1, 1] = found[4:6, 4:6] = found[7, 0] = True
    true = np.zeros_like(found)
    true[5:8, 5:8] = True
    measuring = script("postprocessing")
    assert measuring.false_regions(found, true) == 2
    assert measuring.false_regions(true & False, true) == 0


def test_measures_of_the_same_masks_agree_fully() -> None:
    measures = script("measures")
    rng = np.random.default_rng(0)
    theirs = {f"theirs_{name}": rng.random(20) for name in measures.SHOWN}
    ours = {f"ours_{name}": theirs[f"theirs_{name}"] + 0.5 for name in measures.SHOWN}
    table = measures.agreement(pd.DataFrame({**theirs, **ours}))
    for column, value in (("difference", 0.5), ("low", 0.5), ("high", 0.5), ("median", 0.5), ("correlation", 1.0)):
        np.testing.assert_allclose(table[column], value)
    assert measures.as_markdown(table).count("\n") == 1 + len(measures.SHOWN)


def test_a_presence_threshold_costs_the_dice_of_what_it_empties() -> None:
    presence = script("presence")
    count = 100
    scores = np.linspace(0.01, 1, count)
    shown = pd.DataFrame(
        {
            **{"kind": "positive", "patient_id": [f"p{n // 20}" for n in range(count)], "head": np.nan},
            **{"maximum": scores, "area": scores, "dice": 0.8, "used": scores > 0.1},
        }
    )
    shown["used_dice"] = shown["dice"] * shown["used"]
    empty = shown.head(10).assign(kind="cut", dice=0.0)
    frames = pd.concat([shown, empty], ignore_index=True)
    lines = presence.costs(frames).splitlines()
    # No column for the head, which is not there; four sensitivities a score.
    assert [line.split(" | ")[0] for line in lines[2:10]] == ["| maximum"] * 4 + ["| area"] * 4
    # 95 of 100 are kept: five frames of 0.8 are lost, and the five negatives below the threshold recognised.
    assert lines[2] == "| maximum | 0.95 | 0.050 | 0.7680 (−0.0320) | 0.400 |"
    said = presence.emptied(frames)
    assert re.search(r"0\.7200 \(.*as used, 0\.8000 \(0\.8000 to 0\.8000\) whatever .*difference -0\.0800 \(-", said)


def test_a_gain_in_auroc_is_that_of_the_frames_with_its_interval_of_patients() -> None:
    presence = script("presence")
    generator = np.random.default_rng(0)
    count = 120
    frames = pd.DataFrame(
        {
            "kind": np.repeat(["positive", "cut"], count // 2),
            "patient_id": np.tile([f"p{n}" for n in range(6)], count // 6),
            "maximum": generator.normal(size=count).round(1),
        }
    )
    shown = frames["kind"] == "positive"
    frames["head"] = frames["maximum"] + shown
    expected = roc_auc_score(shown, frames["head"]) - roc_auc_score(shown, frames["maximum"])
    said = re.search(r"cut ([+-][.0-9]+) \(([+-][.0-9]+) to ([+-][.0-9]+)\)", presence.gains(frames))
    assert said is not None
    value, low, high = map(float, said.groups())
    assert value == pytest.approx(expected, abs=6e-4)
    assert 0 < low < value < high
    assert presence.gains(frames.assign(head=np.nan)) == "The bundle has no presence head."


def test_drift_is_judged_as_its_definition_says() -> None:
    drift = script("drift")
    rng = np.random.default_rng(0)
    home = pd.DataFrame({"kind": drift.HOME, "patient": np.arange(60) % 6, "drift": rng.random(60).round(2)})
    home["patient"] = home["patient"].astype(str)
    other = home.assign(kind="spoilt", drift=rng.random(60).round(2) + 0.3)
    far = pd.DataFrame({"kind": "noise", "patient": [f"n{n}" for n in range(8)], "drift": 7.0})
    truth = roc_auc_score(np.repeat([0, 1], 60), np.r_[home["drift"], other["drift"]])
    assert drift.auroc(home, other).startswith(f"{truth:.3f} (")
    assert drift.auroc(home, far) == "1.000 (1.000 to 1.000)"
    frames = pd.concat([home, other, far]).assign(dice=np.nan)
    frames.loc[frames["kind"] == drift.HOME, "dice"] = 1 - home["drift"]
    table = drift.told_apart(frames)
    assert "| noise | 8 | 8 | 7.00 | 1.000 (1.000 to 1.000) | 1.000 (1.000 to 1.000) |" in table
    assert "False alarms by patient, the most: none." in table
    # The greater the drift, the smaller the Dice, without exception.
    assert "| -1.000 (-1.000 to -1.000) |" in drift.foretold(frames)


def test_drift_is_judged_on_pictures_of_the_frames_own_kind() -> None:
    drift = script("drift")
    rng = np.random.default_rng(0)
    new = [drift.Shot(drift.HOME, "1", rng.integers(0, 256, (60, 80), dtype=np.uint8)) for _ in range(4)]
    shots = [*drift.damaged(new, rng), *drift.noise((60, 80), rng), *drift.of_screens(new, rng)]
    assert all(shot.image.dtype == np.uint8 and shot.image.ndim == 2 for shot in shots)
    spoilt = {shot.kind: shot.image for shot in shots[:13]}
    np.testing.assert_array_equal(spoilt["frame, inverted"], 255 - new[0].image)
    np.testing.assert_array_equal(spoilt["frame, upside down"][::-1], new[0].image)
