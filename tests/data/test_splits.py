from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgefusion.config import SplitConfig
from edgefusion.data.splits import Split, make_splits, patient_blocks, read_splits, write_splits
from edgefusion.data.study import COLUMNS, Study
from edgefusion.errors import DataError, UsageError


def study_of(patients: list[str], groups: list[str] | None = None, areas: list[float] | None = None) -> Study:
    """A study without files: splits only look at its table."""
    count = len(patients)
    areas = areas if areas is not None else [10.0 * (1 + index % 7) for index in range(count)]
    frames = pd.DataFrame({column: [""] * count for column in COLUMNS})
    frames["frame_id"] = [f"f{index}" for index in range(count)]
    frames["patient_id"] = patients
    frames["group"] = groups if groups is not None else frames["frame_id"]
    frames["height"], frames["width"] = 10, 20
    frames["area_px"] = pd.array([pd.NA if np.isnan(area) else area for area in areas], dtype="Int64")
    frames["mask"] = ["" if np.isnan(area) else "masks/x.png" for area in areas]
    return Study(Path("study"), "study", ["nerve"], "", "", frames)


@st.composite
def studies(draw: st.DrawFn) -> Study:
    count = draw(st.integers(4, 60))
    pick = lambda options: draw(st.lists(st.sampled_from(options), min_size=count, max_size=count))  # noqa: E731
    patients = pick([f"p{index}" for index in range(draw(st.integers(2, 12)))])
    groups = pick([f"g{index}" for index in range(draw(st.integers(8, 80)))])
    return study_of(patients, groups, pick([float("nan"), 0.0, 5.0, 20.0, 100.0]))


def assert_nothing_on_both_sides(study: Study, split: Split) -> None:
    frames = study.frames.set_index("frame_id")
    train, judged = split.train_frames(study), split.validation_frames(study)
    assert train
    assert judged
    for column in ("patient_id", "group"):
        assert not set(frames.loc[train, column]) & set(frames.loc[judged, column])
    assert not set(split.train) & set(split.validation)


@settings(max_examples=40, deadline=None)
@given(studies(), st.integers(1, 5), st.integers(0, 3))
def test_no_patient_and_no_group_is_on_both_sides_of_a_fold(study: Study, folds: int, seed: int) -> None:
    labelled = study.labelled()
    blocks = patient_blocks(study.frames).loc[labelled.index].nunique()
    if blocks < max(2, folds):
        with pytest.raises(UsageError):
            make_splits(study, SplitConfig(folds=folds, seed=seed))
        return
    splits = make_splits(study, SplitConfig(folds=folds, seed=seed))
    assert len(splits) == folds
    for split in splits:
        assert split.excluded_frames == ()
        assert_nothing_on_both_sides(study, split)
        assert set(split.train) | set(split.validation) == set(labelled["patient_id"])
    if folds > 1:
        judged = [frame for split in splits for frame in split.validation_frames(study)]
        assert sorted(judged) == sorted(labelled["frame_id"])


@settings(max_examples=40, deadline=None)
@given(studies(), st.data())
def test_no_patient_and_no_group_is_on_both_sides_of_a_given_holdout(study: Study, data: st.DataObject) -> None:
    patients = sorted(set(study.labelled()["patient_id"]))
    assume(len(patients) > 1)
    wanted = data.draw(st.sets(st.sampled_from(patients), min_size=1, max_size=len(patients) - 1))
    frames = study.labelled()
    reached = set(study.frames["group"][study.frames["patient_id"].isin(wanted)])
    if (frames["patient_id"].isin(wanted) | frames["group"].isin(reached)).all():
        with pytest.raises(UsageError, match="none is left"):
            make_splits(study, SplitConfig(validation_patients=tuple(wanted)))
        return
    (split,) = make_splits(study, SplitConfig(validation_patients=tuple(wanted)))
    assert set(split.validation) == wanted
    assert set(split.train) == set(patients) - wanted
    assert_nothing_on_both_sides(study, split)


def test_folds_have_the_same_mixture() -> None:
    rng = np.random.default_rng(0)
    patients = [f"p{index}" for index in range(30) for _ in range(20)]
    areas = np.where(rng.random(600) < 0.4, 0, rng.integers(10, 90, 600))
    study = study_of(patients, areas=[float(area) for area in areas])
    for split in make_splits(study, SplitConfig()):
        judged = study.frames.set_index("frame_id").loc[split.validation_frames(study)]
        assert len(judged) == pytest.approx(120, abs=25)
        assert (judged["area_px"] == 0).mean() == pytest.approx((areas == 0).mean(), abs=0.06)


def test_the_seed_reproduces_and_varies() -> None:
    rng = np.random.default_rng(1)
    patients = [f"p{index}" for index in range(20) for _ in range(15)]
    study = study_of(patients, areas=[float(area) for area in rng.integers(0, 90, 300)])
    assert make_splits(study, SplitConfig(seed=3)) == make_splits(study, SplitConfig(seed=3))
    assert len({make_splits(study, SplitConfig(seed=seed))[0].validation for seed in range(6)}) > 1


def test_one_fold_holds_out_a_fifth() -> None:
    study = study_of([f"p{index}" for index in range(20) for _ in range(5)])
    (split,) = make_splits(study, SplitConfig(folds=1))
    assert split.name == "holdout"
    assert len(split.validation) == 4


def test_patients_tied_by_a_chain_of_groups_stay_together() -> None:
    patients = ["a", "b", "b", "c", "d", "e"]
    groups = ["g1", "g1", "g2", "g2", "g3", "g4"]
    study = study_of(patients, groups)
    assert patient_blocks(study.frames).tolist() == [0, 0, 0, 0, 1, 2]
    for split in make_splits(study, SplitConfig(folds=3)):
        assert len({"a", "b", "c"} & set(split.validation)) in (0, 3)


def test_a_straddling_group_leaves_training(capsys: pytest.CaptureFixture[str]) -> None:
    study = study_of(["a", "a", "b", "b"], ["g0", "g1", "g1", "g2"])
    (split,) = make_splits(study, SplitConfig(validation_patients=("b",)))
    assert split.excluded_frames == ("f1",)
    assert split.train_frames(study) == ["f0"]
    assert split.validation_frames(study) == ["f2", "f3"]
    assert "1 frames of 1 training patients are left out" in capsys.readouterr().err


def test_unlabelled_frames_are_in_no_list() -> None:
    study = study_of(["a", "a", "b", "c"], areas=[5.0, float("nan"), 5.0, float("nan")])
    (split,) = make_splits(study, SplitConfig(validation_patients=("b",)))
    assert split.train == ("a",)
    assert split.train_frames(study) == ["f0"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SplitConfig(validation_patients=("b", "x", "y")), "no labelled frames of patients x, y"),
        (SplitConfig(validation_patients=("a", "b", "c")), "none is left to train on"),
        (SplitConfig(folds=4), "3 patients .* cannot be divided into 4 parts"),
        (SplitConfig(folds=0), "0 folds"),
    ],
)
def test_impossible_wishes_are_explained(config: SplitConfig, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_splits(study_of(["a", "b", "c", "c"]), config)


def test_a_holdout_that_shares_every_training_frame_is_refused() -> None:
    with pytest.raises(UsageError, match="none is left to train on"):
        make_splits(study_of(["a", "b"], ["g", "g"]), SplitConfig(validation_patients=("a",)))


def test_a_study_without_labels_cannot_be_divided() -> None:
    with pytest.raises(UsageError, match="no labelled frame"):
        make_splits(study_of(["a", "b"], areas=[float("nan")] * 2), SplitConfig())


def test_splits_survive_the_file(tmp_path: Path) -> None:
    splits = [Split("fold_0", ("a", "b"), ("c",), ("f1",)), Split("fold_1", ("c",), ("a", "b"))]
    write_splits(tmp_path / "splits.json", splits)
    assert read_splits(tmp_path / "splits.json") == splits


def test_splits_of_another_study_are_refused() -> None:
    split = Split("fold_0", ("a",), ("stranger",))
    with pytest.raises(UsageError, match="stranger"):
        split.validation_frames(study_of(["a", "b"]))


GOOD = {"name": "fold_0", "train": ["a"], "validation": ["b"], "excluded_frames": []}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "not a file of splits"),
        ("[]", "not a file of splits"),
        ('{"splits": []}', "has no split"),
        (json.dumps({"splits": [GOOD, GOOD]}), "two of the same name"),
        (json.dumps({"splits": [{**GOOD, "validation": ["a"]}]}), "both sides: a"),
        (json.dumps({"splits": [{**GOOD, "validation": []}]}), "empty side"),
        (json.dumps({"splits": [{**GOOD, "train": "a"}]}), "not a list of names"),
        (json.dumps({"splits": [{**GOOD, "train": [1]}]}), "not a list of names"),
        (json.dumps({"splits": [{"name": "fold_0"}]}), "not a file of splits"),
    ],
)
def test_a_wrong_file_of_splits_is_explained(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "splits.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_splits(tmp_path / "splits.json")


def test_a_missing_file_of_splits(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file of splits"):
        read_splits(tmp_path / "splits.json")


@pytest.mark.parametrize("config", [SplitConfig(2), SplitConfig(1), SplitConfig(validation_patients=("b",))])
def test_patients_who_are_left_out_are_on_no_side(config: SplitConfig) -> None:
    study = study_of(["a", "b", "c", "d", "e"] * 4, groups=["shared"] * 2 + [f"g{index}" for index in range(18)])
    for split in make_splits(study, replace(config, without_patients=("a", "e"))):
        assert set(split.train) | set(split.validation) == {"b", "c", "d"}
        assert not split.excluded_frames  # what resembles a judged frame belongs to a patient who is left out
    with pytest.raises(UsageError, match="no labelled frames of patients z"):
        make_splits(study, replace(config, without_patients=("z",)))
    with pytest.raises(UsageError, match="Without those patients"):
        make_splits(study, SplitConfig(folds=2, without_patients=("a", "b", "c", "d", "e")))


def test_nobody_is_judged_and_left_out() -> None:
    with pytest.raises(UsageError, match="both judged and left out: a"):
        make_splits(study_of(["a", "b"] * 3), SplitConfig(validation_patients=("a",), without_patients=("a",)))
