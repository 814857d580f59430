from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from edgefusion.cluster import search as module
from edgefusion.cluster.search import search
from edgefusion.cluster.space import Trial
from edgefusion.cluster.trials import draw_history, read_trials, trial_folder, write_proposal, write_result
from edgefusion.config import ChannelRecipe, CompareConfig, SearchConfig, SplitConfig, TrainConfig
from edgefusion.data.splits import read_splits
from edgefusion.data.study import Study
from edgefusion.errors import UsageError
from edgefusion.verbs import networks

_CONFIG = SearchConfig(
    base=CompareConfig(
        models=("unet",),
        recipe=ChannelRecipe(("raw",), height=32, width=32),
        train=TrainConfig(epochs=1, batch_size=4, precision="32"),
        split=SplitConfig(folds=1, without_patients=("3",)),
    ),
    space={"train": {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}, "batch_size": {"choices": [2, 4]}}},
    sampler="random",
)


@pytest.fixture(scope="module")
def local_search(few_discs: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(few_discs, tmp_path_factory.mktemp("search") / "run", _CONFIG, trials=3).parent


def test_the_objective_is_the_dice_of_masked_frames_of_inner_patients(local_search: Path) -> None:
    (split,) = read_splits(local_search / "splits.json")
    assert "3" not in (*split.train, *split.validation)
    table = pd.read_csv(local_search / "search.csv")
    assert table["trial"].tolist() == [0, 1, 2]
    assert table["train.learning_rate"].nunique() == 3
    for row in table.itertuples():
        frames = pd.read_csv(trial_folder(local_search, row.trial) / "unet" / "holdout" / "metrics.csv")
        assert set(frames["patient_id"].astype(str)) == set(split.validation)
        assert row.dice == pytest.approx(frames["dice"][frames["true_area"] > 0].mean())


def test_train_takes_the_best_settings_as_they_are(
    few_discs: Study, local_search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.read_csv(local_search / "search.csv")
    best = table.loc[table["dice"].idxmax()]
    given: list[object] = []
    monkeypatch.setattr("edgefusion.training.train.train", lambda *arguments, **more: given.extend(arguments))
    networks.train([str(few_discs.path), "--config", str(local_search / "best.yaml"), "-o", str(tmp_path / "bundle")])
    _, model, _, config, recipe, *_ = given
    assert (model, recipe) == ("unet", _CONFIG.base.recipe)
    assert isinstance(config, TrainConfig)
    assert config == replace(
        _CONFIG.base.train, learning_rate=best["train.learning_rate"], batch_size=int(best["train.batch_size"])
    )


def test_a_search_that_was_stopped_goes_on_to_the_same_result(
    few_discs: Study, local_search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, tried = tmp_path / "run", []
    shutil.copytree(local_search, run)
    # Stopped before the second trial was judged, and before the third was proposed.
    (trial_folder(run, 1) / "result.json").unlink()
    (trial_folder(run, 1) / "unet" / "holdout" / "metrics.csv").unlink()
    shutil.rmtree(trial_folder(run, 2))
    real = module.train_and_judge
    monkeypatch.setattr(module, "train_and_judge", lambda *a: (tried.append(a[2].name), real(*a))[1])
    search(few_discs, run, _CONFIG, trials=3)
    assert tried == ["001", "002"]
    for name in ("search.csv", "best.yaml"):
        assert (run / name).read_bytes() == (local_search / name).read_bytes()
    # Judged, but stopped before that was written down; and one more trial than before.
    (trial_folder(run, 0) / "result.json").unlink()
    search(few_discs, run, _CONFIG, trials=4)
    assert tried == ["001", "002", "003"]
    assert (run / "search.csv").read_text().startswith((local_search / "search.csv").read_text())
    assert len(read_trials(run)) == 4


def test_results_of_a_worker_that_does_not_see_the_folder_are_put_there(
    few_discs: Study, local_search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "mark", lambda folder: "a word that no worker finds")
    search(few_discs, tmp_path / "run", _CONFIG, trials=1)
    for name in ("metrics.csv", "model.safetensors"):
        made, same = (trial_folder(run, 0) / "unet" / "holdout" / name for run in (tmp_path / "run", local_search))
        assert made.read_bytes() == same.read_bytes()


def test_trials_that_are_under_way_are_told_to_the_sampler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Trial] = []
    monkeypatch.setattr(module, "propose", lambda config, number, others: told.extend(others) or {})
    ended, running = Trial(0, {"train.batch_size": 2}, 0.5), Trial(1, {"train.batch_size": 4})
    for trial in (ended, running):
        write_proposal(tmp_path, trial.number, trial.settings)
    write_result(tmp_path, 0, 0.5)
    module._trial(tmp_path, _CONFIG, 2)
    assert told == [ended, running]


def test_what_was_proposed_is_tried_whatever_would_be_proposed_now(tmp_path: Path) -> None:
    settings = {"train.learning_rate": 0.05, "train.batch_size": 2}
    write_proposal(tmp_path, 7, settings)
    assert module._trial(tmp_path, _CONFIG, 7) == Trial(7, settings)
    new = module._trial(tmp_path, _CONFIG, 8)
    assert new.settings != settings
    assert read_trials(tmp_path) == [Trial(7, settings), new]


def test_another_search_into_the_same_folder_is_refused(few_discs: Study, local_search: Path, tmp_path: Path) -> None:
    for other in (replace(_CONFIG, seed=1), replace(_CONFIG, sampler="tpe")):
        with pytest.raises(UsageError, match="holds a search with other settings"):
            search(few_discs, local_search, other)
    (tmp_path / "something").touch()
    refused = {
        "is not a search": (tmp_path, _CONFIG, 1),
        "for one network": (tmp_path, replace(_CONFIG, base=replace(_CONFIG.base, models=("unet", "resunet"))), 1),
        "find nothing": (tmp_path, _CONFIG, 0),
    }
    for message, (folder, config, trials) in refused.items():
        with pytest.raises(UsageError, match=message):
            search(few_discs, folder, config, trials)


def test_patients_without_a_mask_cannot_judge(few_discs: Study, tmp_path: Path) -> None:
    frames = few_discs.frames.assign(
        area_px=np.where(few_discs.frames["patient_id"] == "0", 0, few_discs.frames["area_px"])
    )
    study = Study(few_discs.path, "discs", few_discs.labels, "", "", frames)
    config = replace(_CONFIG, base=replace(_CONFIG.base, split=SplitConfig(1, ("0",))))
    with pytest.raises(UsageError, match="No validation frame has a mask"):
        search(study, tmp_path / "run", config)


@pytest.mark.timeout(300)
def test_a_cluster_finds_what_one_machine_finds(
    few_discs: Study, local_search: Path, cluster_address: str, tmp_path: Path
) -> None:
    search(few_discs, tmp_path / "run", _CONFIG, trials=3, address=cluster_address)
    for name in ("search.csv", "best.yaml"):
        assert (tmp_path / "run" / name).read_bytes() == (local_search / name).read_bytes()


def test_the_chart_shows_every_trial() -> None:
    table = pd.DataFrame({"trial": [0, 1, 3], "dice": [0.5, 0.7, 0.6]})
    assert draw_history(table).count(b"<use ") >= 3
