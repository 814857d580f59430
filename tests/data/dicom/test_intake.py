"""DICOM files become a study in which, and in whose messages, nothing tells who the patients are."""

from __future__ import annotations

import csv
import errno
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.fileset import FileSet
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless, RLELossless, SecondaryCaptureImageStorage

from edgefusion.cli import main
from edgefusion.data.dicom import intake
from edgefusion.data.dicom.pseudonyms import Pseudonyms, default_key_file, load_pseudonyms
from edgefusion.data.ingest import REPORT, ingest
from edgefusion.data.study import Study
from edgefusion.errors import DataError, UsageError

Write = Callable[..., Path]
TISSUE = {"left": 10, "top": 12, "right": 73, "bottom": 51, "cm": 0.01}
IDENTIFIERS = (
    "Doe",
    "Jane",
    "Roe",
    "MRN-00471",
    "MRN-00999",
    "A-77",
    "19700131",
    "20240229",
    "Smith",
    "1.2.826.0.1.3680",
)


def cine(make_tissue: Callable[..., np.ndarray], seed: int, count: int = 3) -> np.ndarray:
    """Different views with a name burned in above the image."""
    frames = np.stack([make_tissue(10 * seed + index) for index in range(count)])
    frames[:, :10] = 255
    frames[:, 2:8, 4:60:2] = 0
    return frames


@pytest.fixture
def folder(tmp_path: Path, write_ultrasound: Write, make_tissue: Callable[..., np.ndarray]) -> Path:
    """Two patients with three objects, a captured screen, an object of no use, and a damaged one."""
    source = tmp_path / "Doe_Jane"
    one = {"regions": [TISSUE], "PatientName": "Doe^Jane", "PatientID": "MRN-00471 "}
    other = {"regions": [TISSUE], "PatientName": "Roe^Richard", "PatientID": "MRN-00999"}
    write_ultrasound(source / "MRN-00471_a", cine(make_tissue, 1), JPEG2000Lossless, **one)
    write_ultrasound(source / "b" / "MRN-00471.dcm", cine(make_tissue, 2, 1), ExplicitVRBigEndian, **one)
    write_ultrasound(source / "c" / "Roe.dcm", cine(make_tissue, 3, 2), RLELossless, **other)
    report = dcmread(source / "c" / "Roe.dcm")
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    report.save_as(source / "c" / "report_Roe")
    broken = write_ultrasound(source / "c" / "Roe_broken.dcm", cine(make_tissue, 4), **other)
    broken.write_bytes(broken.read_bytes()[:-5000])
    return source


def frames_of(study: Study) -> dict[str, int]:
    return study.frames["patient_id"].value_counts().to_dict()


def test_a_folder_becomes_a_study_by_patient(folder: Path, tmp_path: Path, make_tissue) -> None:
    study = ingest(folder, tmp_path / "study", key=tmp_path / "key")
    names = load_pseudonyms(tmp_path / "key")
    one, other = names.name("patient", "MRN-00471"), names.name("patient", "MRN-00999")
    assert frames_of(study) == {one: 4, other: 2}
    assert study.labelled().empty
    assert study.frames["spacing_row_mm"].tolist() == pytest.approx([0.2] * 6)
    assert study.frames["spacing_col_mm"].tolist() == pytest.approx([0.1] * 6)
    # The name burned in above the image is gone.
    first = study.frames["frame_id"][0]
    np.testing.assert_array_equal(study.image(first), cine(make_tissue, 1)[0, 12:52, 10:74])
    with (study.path / REPORT).open() as file:
        report = [(row["file"], row["action"]) for row in csv.DictReader(file)]
    assert report == [("file 5", "ignored"), ("file 4", "skipped")]


def test_identifiers_reach_no_output_and_no_log(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    study = ingest(folder, tmp_path / "study", key=tmp_path / "key")
    written = [path for path in study.path.rglob("*") if path.is_file()]
    texts = [path.relative_to(tmp_path).as_posix() for path in written]
    texts += [path.read_bytes().decode("latin-1") for path in written]
    texts += [*capsys.readouterr(), caplog.text]
    assert len(written) == 10
    for text in texts:
        assert not [name for name in IDENTIFIERS if name.lower() in text.lower()]


def test_pseudonyms_are_those_of_the_key(folder: Path, tmp_path: Path) -> None:
    first = ingest(folder, tmp_path / "first", key=tmp_path / "key")
    again = ingest(folder, tmp_path / "again", key=tmp_path / "key")
    other = ingest(folder, tmp_path / "other", key=tmp_path / "other_key")
    assert first.sha256() == again.sha256()
    assert set(first.frames["patient_id"]).isdisjoint(other.frames["patient_id"])
    # The same source may be taken in again, another may not replace it.
    ingest(folder, tmp_path / "first", key=tmp_path / "key")
    with pytest.raises(UsageError, match="holds a study of DICOM"):
        ingest(folder / "b", tmp_path / "first", key=tmp_path / "key")


def test_a_single_file_and_a_directory(tmp_path: Path, write_ultrasound: Write, make_tissue) -> None:
    path = write_ultrasound(tmp_path / "in" / "x", cine(make_tissue, 1), regions=[TISSUE])
    alone = ingest(path, tmp_path / "alone", key=tmp_path / "key")
    files = FileSet()
    for instance in (dcmread(path), dcmread(write_ultrasound(tmp_path / "in" / "y", cine(make_tissue, 2, 1)))):
        files.add(instance)
    files.write(tmp_path / "disk")
    (tmp_path / "disk" / "icon.png").write_bytes(b"")
    by_index = ingest(tmp_path / "disk" / "DICOMDIR", tmp_path / "index", key=tmp_path / "key")
    by_folder = ingest(tmp_path / "disk", tmp_path / "folder", key=tmp_path / "key")
    assert len(alone.frames) == 3
    assert by_index.sha256() == by_folder.sha256()
    assert set(alone.frames["frame_id"]) < set(by_index.frames["frame_id"])


def test_a_disc_may_be_shown_in_small_letters(tmp_path: Path, write_ultrasound: Write, make_tissue) -> None:
    files = FileSet()
    files.add(dcmread(write_ultrasound(tmp_path / "x", cine(make_tissue, 1))))
    files.write(tmp_path / "disk")
    for path in sorted((tmp_path / "disk").rglob("*"), reverse=True):
        path.rename(path.with_name(path.name.lower()))
    assert len(ingest(tmp_path / "disk" / "dicomdir", tmp_path / "study", key=tmp_path / "key").frames) == 3


def test_a_listed_file_that_is_missing_is_reported(tmp_path: Path, write_ultrasound: Write, make_tissue) -> None:
    files = FileSet()
    for seed in (1, 2):
        files.add(dcmread(write_ultrasound(tmp_path / str(seed), cine(make_tissue, seed))))
    files.write(tmp_path / "disk")
    index = tmp_path / "disk" / "DICOMDIR"
    next(path for path in sorted((tmp_path / "disk").rglob("*")) if path.is_file() and path != index).unlink()
    study = ingest(index, tmp_path / "study", key=tmp_path / "key")
    assert len(study.frames) == 3
    assert "FileNotFoundError" in (study.path / REPORT).read_text()


def test_the_directory_of_pydicom_lists_no_ultrasound(tmp_path: Path) -> None:
    path = get_testdata_file("DICOMDIR", download=False)
    if path is None:
        pytest.skip("DICOMDIR would have to be downloaded")
    with pytest.raises(DataError, match=r"None of the DICOM files holds a usable ultrasound image"):
        ingest(path, tmp_path / "study", key=tmp_path / "key")


def test_a_directory_must_not_point_outside(tmp_path: Path, write_ultrasound: Write, make_tissue) -> None:
    files = FileSet()
    files.add(dcmread(write_ultrasound(tmp_path / "x", cine(make_tissue, 1, 1))))
    files.write(tmp_path / "disk")
    index = dcmread(tmp_path / "disk" / "DICOMDIR")
    index.DirectoryRecordSequence[-1].ReferencedFileID = ["..", "X"]
    index.save_as(tmp_path / "disk" / "DICOMDIR")
    with pytest.raises(DataError, match="lists a file outside its folder"):
        ingest(tmp_path / "disk" / "DICOMDIR", tmp_path / "study", key=tmp_path / "key")


class TestOddFiles:
    def report(self, study: Study) -> list[dict[str, str]]:
        with (study.path / REPORT).open(encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def test_without_region_the_frame_is_whole_and_this_is_said(
        self, tmp_path: Path, write_ultrasound: Write, make_tissue, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = write_ultrasound(tmp_path / "x", cine(make_tissue, 1, 1))
        study = ingest(path, tmp_path / "study", key=tmp_path / "key")
        assert study.frames[["height", "width"]].to_numpy().tolist() == [[60, 80]]
        assert study.frames["spacing_row_mm"].isna().all()
        assert "whatever is written into the picture is in the study" in capsys.readouterr().err

    def test_a_copy_is_taken_once(self, tmp_path: Path, write_ultrasound: Write, make_tissue) -> None:
        path = write_ultrasound(tmp_path / "in" / "x", cine(make_tissue, 1), regions=[TISSUE])
        (tmp_path / "in" / "y").write_bytes(path.read_bytes())
        study = ingest(tmp_path / "in", tmp_path / "study", key=tmp_path / "key")
        assert len(study.frames) == 3
        assert self.report(study)[0]["reason"] == "a copy of file 1: same SOP Instance UID"

    def test_blank_frames_and_foreign_objects(self, tmp_path: Path, write_ultrasound: Write, make_tissue) -> None:
        frames = cine(make_tissue, 1)
        frames[1] = 7
        write_ultrasound(tmp_path / "in" / "x", frames, regions=[TISSUE])
        capture = {"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "US"}
        write_ultrasound(tmp_path / "in" / "y", cine(make_tissue, 2, 1), **capture)
        write_ultrasound(tmp_path / "in" / "z", cine(make_tissue, 3, 1), **capture | {"Modality": "CT"})
        study = ingest(tmp_path / "in", tmp_path / "study", key=tmp_path / "key")
        assert len(study.frames) == 3
        assert self.report(study)[0]["file"] == "file 3"
        assert "file 1, frame 2" in {row["file"] for row in self.report(study)}

    def test_patients_without_number_are_told_apart_by_study(
        self, tmp_path: Path, write_ultrasound: Write, make_tissue
    ) -> None:
        for name in "xy":
            write_ultrasound(tmp_path / "in" / name, cine(make_tissue, ord(name), 2), regions=[TISSUE], PatientID="")
        study = ingest(tmp_path / "in", tmp_path / "study", key=tmp_path / "key")
        assert sorted(frames_of(study).values()) == [2, 2]

    def test_strict_stops_without_naming_the_file(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError) as error:
            ingest(folder, tmp_path / "study", key=tmp_path / "key", strict=True)
        assert "file 4" in str(error.value)
        assert "Roe" not in str(error.value)
        assert not (tmp_path / "study").exists()

    def test_a_full_disk_is_not_blamed_on_the_files(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(intake, "store_frame", full)
        with pytest.raises(OSError, match="No space left"):
            ingest(folder, tmp_path / "study", key=tmp_path / "key")

    def test_patients_by_pattern_are_refused(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="whose they are"):
            ingest(folder, tmp_path / "study", patient_regex="(.)", key=tmp_path / "key")


class TestKey:
    @pytest.fixture(autouse=True)
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def test_it_lies_with_the_user_and_is_closed_to_others(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["ingest", str(folder), "-o", str(tmp_path / "study")]) == 0
        key = tmp_path / "config" / "edgefusion" / "pseudonyms.key"
        assert key == default_key_file()
        assert str(key) in capsys.readouterr().err
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        content = key.read_text()
        assert main(["ingest", str(folder), "-o", str(tmp_path / "study")]) == 0
        assert key.read_text() == content
        assert "new key" not in capsys.readouterr().err

    def test_an_open_key_is_refused(self, tmp_path: Path) -> None:
        load_pseudonyms()
        os.chmod(default_key_file(), 0o640)
        with pytest.raises(UsageError, match="chmod 600"):
            load_pseudonyms()

    def test_no_key_inside_what_is_given_away(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="would lie inside"):
            load_pseudonyms(tmp_path / "study" / "key", outside=tmp_path / "study")

    @pytest.mark.parametrize("content", [b"", b"secret", b"\xff" * 64, b"0" * 63])
    def test_what_is_no_key_is_refused(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "key").write_bytes(content)
        os.chmod(tmp_path / "key", 0o600)
        with pytest.raises(DataError, match=r"key"):
            load_pseudonyms(tmp_path / "key")

    @given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
    def test_pseudonyms_tell_names_and_kinds_apart(self, one: str, other: str) -> None:
        names = Pseudonyms(b"k" * 32)
        assert names.name("patient", one) == names.name("patient", one)
        assert (names.name("patient", one) == names.name("patient", other)) == (one == other)
        assert names.name("patient", one) != names.name("study", one)
        assert len(names.uid(one)) <= 64
