from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from edgefusion.bundle import Bundle, Origin
from edgefusion.config import ChannelRecipe
from edgefusion.data.phantom.study import make_phantom_study
from edgefusion.data.splits import Split, write_splits
from edgefusion.data.study import Study, frames_table, store_frame
from edgefusion.errors import BundleError, UsageError
from edgefusion.evaluation.clean import measure_clean, overlap_facts
from edgefusion.evaluation.evaluate import evaluate
from edgefusion.evaluation.memory import COMPANION, IDENTICAL, NEARLY, SEEN, find_overlap, main, remember
from edgefusion.models.zoo import build_model

TRAINED = ["p00", "p01"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Four patients with two frames each."""
    torch.set_num_threads(1)
    return make_phantom_study(tmp_path_factory.mktemp("memory") / "necks", 4, 2, size=(64, 96))


def make_bundle(study: Study, **fields: object) -> Bundle:
    """A network that was, as it says, trained on ``TRAINED``, and remembers nothing."""
    torch.manual_seed(0)
    bundle = Bundle(
        model=build_model("unet", 1, 1),
        model_name="unet",
        recipe=ChannelRecipe(("raw",), 32, 48),
        labels=["nerve"],
        study_name=study.name,
        study_sha256=study.sha256(),
        trained_on=list(TRAINED),
    )
    return dataclasses.replace(bundle, **fields)


def frames_of(study: Study, patients: list[str]) -> list[str]:
    return [str(frame) for frame in study.frames["frame_id"][study.frames["patient_id"].isin(patients)]]


@pytest.fixture
def bundle(study: Study) -> Bundle:
    made = make_bundle(study)
    remember(made, study, frames_of(study, TRAINED))
    return made


def retold(study: Study, folder: Path, change: Callable[[np.ndarray], np.ndarray], unchanged: str = "") -> Study:
    """The same frames, changed but for those of one patient, under other names of study, patients and frames."""
    rows = []
    for frame in study.frames.itertuples():
        image, mask = study.image(frame.frame_id), study.mask(frame.frame_id)
        if frame.patient_id != unchanged:
            image, mask = change(image), change(mask)
        rows.append(
            store_frame(folder, f"x{frame.frame_id}", f"x{frame.patient_id}", image, (mask > 0).astype(np.uint8))
        )
    told = Study(folder, "others", ["nerve"], "simulated", "none", frames_table(rows))
    told.save()
    return Study.load(folder)


def test_patients_trained_on_are_known_by_name_and_pixels(study: Study, bundle: Bundle) -> None:
    overlap = find_overlap(bundle, study, frames_of(study, ["p01", "p02"]))
    assert list(overlap.frames["frame_id"]) == frames_of(study, ["p01"])
    assert overlap.frames[[SEEN, IDENTICAL]].all(axis=None)
    assert not overlap.frames[NEARLY].any()
    assert overlap.forgotten == []


def test_the_same_name_of_study_and_patient_is_enough(study: Study, bundle: Bundle) -> None:
    again = dataclasses.replace(study, frames=study.frames.assign(source="elsewhere", sha256="00" * 32))
    assert again.sha256() != study.sha256()
    del bundle.companions[COMPANION]
    overlap = find_overlap(bundle, again, frames_of(study, ["p00", "p03"]))
    assert overlap.patients(SEEN) == ["p00"]
    assert overlap.forgotten == [study.name]


def test_identical_pixels_are_found_under_other_names(study: Study, bundle: Bundle, tmp_path: Path) -> None:
    told = retold(study, tmp_path / "told", lambda image: image)
    found = find_overlap(bundle, told, list(told.frames["frame_id"])).frames
    assert list(found["patient_id"]) == ["xp00", "xp00", "xp01", "xp01"]
    assert list(found["of_patient"]) == ["p00", "p00", "p01", "p01"]
    assert found[IDENTICAL].all()
    assert not found[[SEEN, NEARLY]].any(axis=None)
    assert set(found["of_study"]) == {study.name}
    assert set(found["bits"]) == {0}


def test_near_duplicates_are_found_under_other_names(study: Study, bundle: Bundle, tmp_path: Path) -> None:
    told = retold(study, tmp_path / "told", lambda image: cv2.resize(image[2:, :-3], (120, 80)))
    found = find_overlap(bundle, told, list(told.frames["frame_id"])).frames
    assert list(found["patient_id"]) == ["xp00", "xp00", "xp01", "xp01"]
    assert found[NEARLY].all()
    assert not found[[SEEN, IDENTICAL]].any(axis=None)
    assert found["bits"].between(1, 64).all()


def test_a_picture_without_structure_resembles_no_other(study: Study, tmp_path: Path) -> None:
    images = {"black": np.zeros((50, 60)), "grey": np.full((50, 60), 90), "again": np.zeros((50, 60))}
    rows = [store_frame(tmp_path, name, name, image.astype(np.uint8), None) for name, image in images.items()]
    flat = Study(tmp_path, "flat", ["nerve"], "made", "none", frames_table(rows))
    bundle = make_bundle(study, study_name="before", trained_on=["black"])
    remember(bundle, flat, ["black"])
    found = find_overlap(bundle, flat, list(images)).frames.set_index("frame_id")
    assert list(found.index) == ["black", "again"]
    assert found[IDENTICAL].all()


def test_all_trainings_are_remembered_apart(study: Study, tmp_path: Path) -> None:
    told = retold(study, tmp_path / "told", lambda image: image[:, ::-1])
    origin = Origin(told.name, told.sha256(), ["xp03"], "")
    bundle = make_bundle(study, started_from=[origin])
    remember(bundle, study, frames_of(study, TRAINED))
    assert find_overlap(bundle, study, frames_of(study, ["p02"])).forgotten == ["others"]
    remember(bundle, told, frames_of(told, ["xp03"]), 0)
    remember(bundle, told, frames_of(told, ["xp03"]), 0)
    memory = bundle.companions[COMPANION]
    assert sorted(memory["stage"].tolist()) == [0, 0, 1, 1, 1, 1]
    mirrored = dataclasses.replace(told, name="third", frames=told.frames.assign(source=""))
    found = find_overlap(bundle, mirrored, list(mirrored.frames["frame_id"])).frames
    assert list(found["of_patient"]) == ["xp03", "xp03"]


def test_no_picture_is_kept_and_the_hashes_survive_saving(bundle: Bundle, study: Study, tmp_path: Path) -> None:
    bundle.save(tmp_path / "bundle")
    memory = Bundle.load(tmp_path / "bundle").companions[COMPANION]
    assert {key: tuple(value.shape) for key, value in memory.items()} == {
        **{"sha256": (4, 32), "simhash": (4, 32)},
        **{"stage": (4,), "patient": (4,)},
    }
    digests = [bytes(row.tolist()).hex() for row in memory["sha256"]]
    assert digests == list(study.frames["sha256"][study.frames["patient_id"].isin(TRAINED)])


@pytest.mark.parametrize(
    "change",
    [
        lambda memory: memory.pop("patient"),
        lambda memory: memory.update(simhash=memory["simhash"][:, :7]),
        lambda memory: memory.update(stage=memory["stage"] + 1),
        lambda memory: memory.update(patient=memory["patient"] - 9),
        lambda memory: memory.update({key: value[:0] for key, value in memory.items()}),
    ],
)
def test_a_memory_in_another_form_is_refused(study: Study, bundle: Bundle, change: Callable[[object], object]) -> None:
    change(bundle.companions[COMPANION])
    with pytest.raises(BundleError, match="remembers of its training frames is damaged"):
        find_overlap(bundle, study, frames_of(study, TRAINED))


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    bundle.save(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_evaluate_warns_and_measures_the_rest_apart(
    study: Study, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = evaluate(folder, study, tmp_path / "whole")
    assert set(pd.read_csv(tmp_path / "whole" / "frames.csv")["presence_threshold"]) == {0.5}
    said = capsys.readouterr().err
    assert "Careful: it was trained on 2 patients (p00, p01) of those to be judged" in said
    assert "Without these patients, on 4 frames of 2 patients, the Dice of masked frames is: nerve" in said
    split = tmp_path / "splits.json"
    write_splits(split, [Split("holdout", ("p00", "p01"), ("p02", "p03"))])
    held_out = evaluate(folder, study, tmp_path / "held out", split)
    assert "Careful" not in capsys.readouterr().err
    assert held_out["clean"] is None
    assert json.dumps(whole["clean"]["measures"]) == json.dumps(held_out["measures"])
    assert whole["overlap"]["patients"] == ["p00", "p01"]
    assert json.loads((tmp_path / "whole" / "summary.json").read_text())["clean"]["patients"] == 2


def test_evaluate_names_the_nearest_copy_in_another_study(
    study: Study, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = retold(study, tmp_path / "told", lambda image: cv2.resize(image, (108, 70)), unchanged="p01")
    facts = evaluate(folder, told, tmp_path / "told out")["overlap"]
    said = capsys.readouterr().err
    assert "trained on the very pixels of 2 frames of 1 patient (xp01)" in said
    assert "2 frames of 1 patient (xp00) nearly repeat frames that it was trained on" in said
    assert "0 of 256 bits from a frame of patient p01 in 'necks'" in said
    assert facts["identical"] == {"frames": 2, "patients": ["xp01"]}
    assert facts["near_duplicate"] == {"frames": 2, "patients": ["xp00"]}


def test_where_nobody_is_new_no_figure_is_called_clean(
    study: Study, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = tmp_path / "splits.json"
    write_splits(split, [Split("holdout", ("p02",), ("p00",))])
    summary = evaluate(folder, study, tmp_path / "out", split)
    assert "No patient is left who shares nothing with the training" in capsys.readouterr().err
    assert summary["clean"] == {"frames": 0, "patients": 0, "measures": []}


def test_a_bundle_without_memory_says_so(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_bundle(study).save(tmp_path / "bundle")
    summary = evaluate(tmp_path / "bundle", study, tmp_path / "out")
    assert "does not remember the frames of necks" in capsys.readouterr().err
    assert summary["overlap"]["not_remembered"] == ["necks"]


def test_a_bundle_from_before_gets_its_memory_by_command(study: Study, folder: Path, tmp_path: Path) -> None:
    old, other = tmp_path / "old", study.path.parent / "other"
    make_bundle(study).save(old)
    for name in ("README.md", "model.onnx"):
        (old / name).write_text("as it was")
    left_out = frames_of(study, ["p01"])[0]
    write_splits(tmp_path / "splits.json", [Split("holdout", ("p00", "p01"), ("p02",), (left_out,))])
    assert main([str(old), str(study.path)]) == 0
    expected = Bundle.load(folder).companions[COMPANION]
    assert all(torch.equal(value, expected[key]) for key, value in Bundle.load(old).companions[COMPANION].items())
    assert main([str(old), str(study.path), "--split", str(tmp_path / "splits.json")]) == 0
    assert len(Bundle.load(old).companions[COMPANION]["stage"]) == 3
    assert {(old / name).read_text() for name in ("README.md", "model.onnx")} == {"as it was"}
    shutil.copytree(study.path, other)
    changed = Study.load(other)
    dataclasses.replace(changed, frames=changed.frames.iloc[1:]).save()
    assert main([str(old), str(other)]) == UsageError.exit_code


def test_clean_measures_leave_out_whole_patients(
    study: Study, bundle: Bundle, make_frames: Callable[..., object]
) -> None:
    table = make_frames("unet", patients=4, frames=2)
    overlap = find_overlap(bundle, study, frames_of(study, ["p02", "p03"]))
    assert measure_clean(table, overlap) is None
    assert overlap_facts(overlap)["worst"] is None
