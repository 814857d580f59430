from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from edgefusion.bundle import Bundle
from edgefusion.errors import DataError, UsageError
from edgefusion.inference.dicom_write import write_dicom
from edgefusion.inference.measure import measure
from edgefusion.inference.predictor import Prediction
from edgefusion.inference.writers import DICOM_FORMATS, draw_overlay, output_path

Source = Callable[..., Path]
Predictions = Callable[..., list[Prediction]]


def pixels(source: Path) -> np.ndarray:
    read = pydicom.dcmread(source)
    return read.pixel_array.reshape(-1, read.Rows, read.Columns)


def write_all(
    source: Path, predictions: list[Prediction], bundle: Bundle, folder: Path, **more: object
) -> dict[str, Path]:
    write_dicom(DICOM_FORMATS, source, iter(predictions), iter(pixels(source)), bundle, folder, "out", **more)  # type: ignore[arg-type]
    return {name: output_path(name, folder, "out") for name in DICOM_FORMATS}


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian: dicom3tools) is not installed")
@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("frames", [1, 5])
def test_dciodvfy_finds_no_error(
    frames: int, empty: bool, tmp_path: Path, write_source: Source, make_predictions: Predictions, bundle: Bundle
) -> None:
    source = write_source(tmp_path / "x.dcm", frames)
    paths = write_all(source, make_predictions(frames, empty), bundle, tmp_path, spacing=(0.1, 0.12), rate=25)
    for path in paths.values():
        found = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        lines = (found.stdout + found.stderr).splitlines()
        assert not [line for line in lines if line.startswith("Error")], (path.name, lines)


@pytest.mark.parametrize("frames", [1, 5])
def test_the_same_bytes_every_time(
    frames: int, tmp_path: Path, write_source: Source, make_predictions: Predictions, bundle: Bundle
) -> None:
    source = write_source(tmp_path / "x.dcm", frames)
    one = write_all(source, make_predictions(frames), bundle, tmp_path / "one")
    two = write_all(source, make_predictions(frames), bundle, tmp_path / "two")
    assert [path.read_bytes() for path in one.values()] == [path.read_bytes() for path in two.values()]
    instances = [pydicom.dcmread(path).SOPInstanceUID for path in one.values()]
    assert len({*instances}) == len(DICOM_FORMATS)


@pytest.mark.parametrize("frames", [1, 5])
def test_the_segmentation_holds_the_masks_and_the_probabilities(
    frames: int, tmp_path: Path, write_source: Source, make_predictions: Predictions, bundle: Bundle
) -> None:
    predictions = make_predictions(frames)
    paths = write_all(write_source(tmp_path / "x.dcm", frames), predictions, bundle, tmp_path)
    for name in ("dicom-seg", "dicom-seg-placed", "dicom-seg-probability"):
        segmentation = hd.seg.segread(paths[name])
        found = np.zeros((frames, 2, 61, 83))
        for pixels_, group in zip(
            segmentation.pixel_array.reshape(-1, 61, 83), segmentation.PerFrameFunctionalGroupsSequence, strict=True
        ):
            segment = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            reference = group.DerivationImageSequence[0].SourceImageSequence[0]
            found[reference.get("ReferencedFrameNumber", 1) - 1, segment - 1] = pixels_
        for planes, truth in zip(found, predictions, strict=True):
            expected = [truth.mask == 1, truth.mask == 2] if "prob" not in name else np.rint(truth.probability * 255)
            np.testing.assert_array_equal(planes, expected)


@pytest.mark.parametrize("frames", [1, 5])
def test_the_secondary_capture_is_the_overlay(
    frames: int, tmp_path: Path, write_source: Source, make_predictions: Predictions, bundle: Bundle
) -> None:
    source, predictions = write_source(tmp_path / "x.dcm", frames), make_predictions(frames)
    read = pydicom.dcmread(write_all(source, predictions, bundle, tmp_path)["dicom-sc"])
    expected = [draw_overlay(*pair) for pair in zip(pixels(source), predictions, strict=True)]
    np.testing.assert_array_equal(read.pixel_array.reshape(frames, 61, 83, 3), expected)
    assert read.BurnedInAnnotation == "YES"
    assert read.get("FrameTime") == (None if frames == 1 else 40)
    assert read.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.1"


def groups(report: Dataset) -> list[dict[str, object]]:
    """Measurement groups of a report: measures by meaning, with their units, and the frames referred to."""
    content = hd.sr.ComprehensiveSR.from_dataset(report).content
    found: list[dict[str, object]] = []
    for group in [*content.get_planar_roi_measurement_groups(), *content.get_image_measurement_groups()]:
        values: dict[str, object] = {m.name.meaning: (m.value, m.unit.value) for m in group.get_measurements()}
        for name, words in (("segment", "Referenced Segmentation Frame"), ("source", "Source image for segmentation")):
            for item in group[0].ContentSequence:
                if item.ConceptNameCodeSequence[0].CodeMeaning.casefold() == words.casefold():
                    values[name] = item.ReferencedSOPSequence[0]
        found.append({"finding": group.finding_type.value, "identifier": group.tracking_identifier, **values})
    return found


def test_the_report_holds_the_measures_in_their_units(
    tmp_path: Path, write_source: Source, make_predictions: Predictions, bundle: Bundle
) -> None:
    source, (found,) = write_source(tmp_path / "x.dcm"), make_predictions(1)
    paths = write_all(source, [found], bundle, tmp_path, spacing=(0.1, 0.12))
    report, segmentation = pydicom.dcmread(paths["dicom-sr"]), pydicom.dcmread(paths["dicom-seg"])
    nerve, vessel = groups(report)
    truth = measure(found, pixels(source)[0], (0.1, 0.12))
    assert nerve["finding"] == "3057000"
    assert nerve["Area"] == (pytest.approx(truth.area_total, rel=1e-5), "mm2")
    assert nerve["Minimum caliper diameter of largest region"] == (pytest.approx(truth.feret_min, rel=1e-5), "mm")
    assert nerve["Circularity of largest region"] == (pytest.approx(truth.circularity, rel=1e-5), "1")
    assert nerve["Mean slope of echo across the border"] == (pytest.approx(truth.border_sharpness, rel=1e-5), "/mm")
    assert vessel["Area"] == (0, "mm2")
    assert {"finding", "identifier", "Area", "segment", "source"} == vessel.keys()
    for number, group in enumerate((nerve, vessel), start=1):
        assert isinstance(group["segment"], Dataset)
        assert group["segment"].ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
        assert group["segment"].ReferencedFrameNumber == number
        assert isinstance(group["source"], Dataset)
        assert "ReferencedFrameNumber" not in group["source"]
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert "not for diagnosis" in str(report)


def test_without_a_spacing_the_report_counts_pixels(
    tmp_path: Path, write_source: Source, make_predictions: Predictions, bundle: Bundle
) -> None:
    paths = write_all(write_source(tmp_path / "x.dcm"), make_predictions(1), bundle, tmp_path)
    nerve, _ = groups(pydicom.dcmread(paths["dicom-sr"]))
    assert nerve["Area"] == (pytest.approx(np.count_nonzero(make_predictions(1)[0].mask == 1)), "{pixel}")


def test_the_report_of_a_clip_has_each_frame_and_the_whole(
    tmp_path: Path, write_source: Source, make_predictions: Predictions, bundle: Bundle
) -> None:
    predictions = make_predictions(6)
    source = write_source(tmp_path / "x.dcm", 6)
    paths = write_all(source, predictions, bundle, tmp_path, spacing=(0.1, 0.1), rate=25)
    found = groups(pydicom.dcmread(paths["dicom-sr"]))
    nerve = [group for group in found if group["identifier"] == "nerve"]
    areas = [np.count_nonzero(p.mask == 1) * 0.01 for p in predictions if (p.mask == 1).any()]
    assert [group["Area"][0] for group in nerve] == pytest.approx(areas, rel=1e-5)  # type: ignore[index]
    assert [group["source"].ReferencedFrameNumber for group in nerve] == [1, 2, 4, 5, 6]  # type: ignore[attr-defined]
    assert [group["segment"].ReferencedFrameNumber for group in nerve] == list(range(1, len(areas) + 1))  # type: ignore[attr-defined]
    (clip,) = [group for group in found if group["identifier"] == "nerve clip"]
    assert clip["Maximum over minimum area"] == (pytest.approx(max(areas) / min(areas), rel=1e-5), "1")
    assert clip["Number of frames that show it"] == (len(areas), "1")
    assert clip["Number of stretches where it is lost"] == (1, "1")


def test_predictions_must_be_those_of_the_file(
    tmp_path: Path, write_source: Source, make_predictions: Predictions, bundle: Bundle
) -> None:
    source = write_source(tmp_path / "x.dcm", 3)
    frames = pixels(source)
    for count, error in ((2, DataError), (4, UsageError)):
        images = np.zeros((count, 61, 83), np.uint8)
        with pytest.raises(error, match=r"x\.dcm"):
            write_dicom(["dicom-seg"], source, make_predictions(count), images, bundle, tmp_path, "s")
    small = [replace(one, mask=one.mask[1:]) for one in make_predictions(3)]
    with pytest.raises(UsageError, match="not those of"):
        write_dicom(["dicom-seg"], source, small, frames, bundle, tmp_path, "s")
    assert not list(tmp_path.glob("s*"))


def test_files_that_nothing_can_refer_to(tmp_path: Path, write_source: Source, bundle: Bundle) -> None:
    bare = write_source(tmp_path / "x.dcm")
    header = pydicom.dcmread(bare)
    del header.StudyInstanceUID
    header.save_as(bare)
    text = tmp_path / "x.txt"
    text.write_text("nothing")
    for path, words in ((bare, "StudyInstanceUID"), (text, "not a DICOM"), (tmp_path / "none.dcm", "cannot be read")):
        with pytest.raises(DataError, match=words):
            write_dicom(["dicom-seg"], path, [], [], bundle, tmp_path, "s")


def test_sparse_files_are_enough(
    tmp_path: Path, write_source: Source, make_predictions: Predictions, bundle: Bundle
) -> None:
    source = write_source(tmp_path / "x.dcm")
    header = pydicom.dcmread(source)
    for name in (
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyDate",
        "StudyTime",
        "StudyID",
        "AccessionNumber",
        "ReferringPhysicianName",
        "ContentDate",
        "ContentTime",
        "InstanceNumber",
        "Modality",
    ):
        delattr(header, name)
    header.save_as(source)
    paths = write_all(source, make_predictions(1), bundle, tmp_path)
    assert pydicom.dcmread(paths["dicom-seg"]).PatientName == ""


def test_formats_are_checked(tmp_path: Path, bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="Choose from dicom-seg, "):
        write_dicom(["dicom-sge"], tmp_path, [], [], bundle, tmp_path, "s")


def test_a_header_that_cannot_be_used_is_said_without_its_values(
    tmp_path: Path, write_source: Source, make_predictions: Predictions, bundle: Bundle
) -> None:
    source = write_source(tmp_path / "x.dcm", PatientSex="Doe^Jane")
    with pytest.raises(DataError, match=r"x\.dcm has a header") as caught:
        write_all(source, make_predictions(1), bundle, tmp_path / "out")
    assert "Doe" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_formats_alone_are_those_of_all_together(
    tmp_path: Path, write_source: Source, make_predictions: Predictions, bundle: Bundle
) -> None:
    source, predictions = write_source(tmp_path / "x.dcm", 3), make_predictions(3)
    together = write_all(source, predictions, bundle, tmp_path / "all")
    for name, path in together.items():
        folder = tmp_path / name
        write_dicom([name], source, predictions, pixels(source), bundle, folder, "out")
        assert [file.read_bytes() for file in folder.iterdir()] == [path.read_bytes()]


def test_files_without_a_preamble_are_read(
    tmp_path: Path, write_source: Source, make_predictions: Predictions, bundle: Bundle
) -> None:
    source = write_source(tmp_path / "x.dcm")
    bare = pydicom.dcmread(source)
    del bare.file_meta.TransferSyntaxUID
    bare.save_as(tmp_path / "bare.dcm", implicit_vr=False, little_endian=True)
    (tmp_path / "bare.dcm").write_bytes((tmp_path / "bare.dcm").read_bytes().removeprefix(b"\0" * 128 + b"DICM"))
    images = pixels(source)
    for name in ("x", "bare"):
        write_dicom(["dicom-seg"], tmp_path / f"{name}.dcm", make_predictions(1), images, bundle, tmp_path, name)
    assert (tmp_path / "x_seg.dcm").read_bytes() == (tmp_path / "bare_seg.dcm").read_bytes()
