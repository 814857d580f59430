from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from edgefusion.data.study import COLUMNS, Study, frames_table, is_study, pixels_sha256, store_frame
from edgefusion.errors import DataError, UsageError


@pytest.fixture
def study(tmp_path: Path, make_tissue, make_disc) -> Study:
    """Names are chosen to be mistaken for numbers and for missing values."""
    folder = tmp_path / "study"
    rows = [
        store_frame(folder, "0001", "007", make_tissue(1), make_disc(value=2), spacing=(0.1, 0.2), source="a.tif"),
        store_frame(folder, "NA", "nan", make_tissue(2).astype(np.uint16) * 200, np.zeros((60, 80), np.uint8)),
        store_frame(folder, "null", "007", make_tissue(3, 50, 70), None, clean=make_tissue(4, 50, 70)),
    ]
    study = Study(folder, "three frames", ["nerve", "vessel"], "made up", "free", frames_table(rows))
    study.save()
    return study


def test_what_is_saved_is_loaded(study: Study) -> None:
    loaded = Study.load(study.path)
    assert dataclasses.replace(loaded, frames=study.frames) == study
    assert tuple(loaded.frames.columns) == COLUMNS
    assert list(loaded.frames["frame_id"]) == ["0001", "NA", "null"]
    assert list(loaded.frames["patient_id"]) == ["007", "nan", "007"]
    assert list(loaded.frames["area_px"].isna()) == [False, False, True]
    assert loaded.frames["spacing_row_mm"].tolist()[0] == 0.1
    assert loaded.frames["spacing_col_mm"].isna().tolist() == [False, True, True]
    assert loaded.sha256() == study.sha256()


def test_pictures_come_back_unchanged(study: Study, make_tissue, make_disc) -> None:
    np.testing.assert_array_equal(study.image("0001"), make_tissue(1))
    np.testing.assert_array_equal(study.mask("0001"), make_disc(value=2))
    assert study.image("NA").dtype == np.uint16
    np.testing.assert_array_equal(study.image("NA"), make_tissue(2).astype(np.uint16) * 200)


def test_unlabelled_is_not_empty(study: Study) -> None:
    assert study.mask("null") is None
    empty = study.mask("NA")
    assert empty is not None
    assert not empty.any()
    assert list(study.labelled()["frame_id"]) == ["0001", "NA"]
    assert study.labelled()["area_px"].tolist() == [int((study.mask("0001") > 0).sum()), 0]


def test_the_hash_follows_the_content(study: Study) -> None:
    changed = study.frames.assign(patient_id="x")
    assert dataclasses.replace(study, frames=changed).sha256() != study.sha256()


def test_the_pixel_hash_knows_shape_and_type() -> None:
    image = np.zeros((4, 6), np.uint8)
    others = [image.reshape(6, 4), np.zeros((2, 6), np.uint16), np.eye(4, 6, dtype=np.uint8)]
    assert len({pixels_sha256(picture) for picture in [image, *others]}) == 4
    assert pixels_sha256(image) == pixels_sha256(np.asfortranarray(image))


def test_an_unknown_frame_is_named(study: Study) -> None:
    with pytest.raises(UsageError, match="no frame 'missing'"):
        study.image("missing")


def test_a_missing_folder_and_a_folder_without_study(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no folder"):
        Study.load(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is not a study"):
        Study.load(tmp_path)
    assert not is_study(tmp_path)


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/passwd", "images/../../x.png", "..\\x.png", "C:x.png"])
def test_a_table_must_not_reach_outside_the_study(study: Study, name: str) -> None:
    frames = study.frames.copy()
    frames.loc[0, "image"] = name
    dataclasses.replace(study, frames=frames).save()
    with pytest.raises(DataError, match="outside the study"):
        Study.load(study.path)


@pytest.mark.parametrize("whole_folder", [False, True])
def test_links_must_not_lead_out_of_the_study(study: Study, tmp_path: Path, whole_folder: bool) -> None:
    link = study.path / (study.frames["image"][0] if not whole_folder else "images")
    outside = link.rename(tmp_path / "outside")
    link.symlink_to(outside)
    with pytest.raises(DataError, match="a link that leads out of the study"):
        Study.load(study.path)
    link.unlink()
    link.symlink_to(outside.rename(study.path / "kept").name if whole_folder else outside.rename(study.path / "kept"))
    Study.load(study.path)


def test_labels_that_are_paths_are_refused(study: Study) -> None:
    dataclasses.replace(study, labels=["../nerve"]).save()
    with pytest.raises(DataError, match="cannot stand in the name of a file"):
        Study.load(study.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frames: frames.drop(columns="group"), "lacks the columns group"),
        (lambda frames: pd.concat([frames, frames]), "lists frame '0001' twice"),
        (lambda frames: frames.assign(height="tall"), "cannot be read"),
        (lambda frames: frames.assign(spacing_row_mm="0.11c."), "cannot be read: could not convert string to float"),
        (lambda frames: frames.assign(spacing_col_mm="0b11"), "cannot be read: could not convert string to float"),
    ],
)
def test_a_broken_table_is_explained(study: Study, change, message: str) -> None:
    change(study.frames).to_csv(study.path / "frames.csv", index=False)
    with pytest.raises(DataError, match=message):
        Study.load(study.path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("labels: [nerve", "not valid YAML"),
        ("just text", "does not name"),
        ("{name: x, labels: [nerve], format: 99}", "format 99"),
    ],
)
def test_a_broken_description_is_explained(study: Study, text: str, message: str) -> None:
    (study.path / "study.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        Study.load(study.path)


def test_a_mask_that_does_not_fit_is_refused(study: Study) -> None:
    frames = study.frames.copy()
    frames.loc[0, "width"] = 12
    with pytest.raises(DataError, match="does not fit"):
        dataclasses.replace(study, frames=frames).mask("0001")
    with pytest.raises(DataError, match="does not fit"):
        dataclasses.replace(study, labels=["nerve"]).mask("0001")
