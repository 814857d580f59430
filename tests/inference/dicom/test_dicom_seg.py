from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.sr.codedict import codes

from edgefusion.bundle import Bundle
from edgefusion.inference.dicom_seg import make_segmentation
from edgefusion.inference.dicom_source import anatomy, read_source

WriteSource = Callable[..., Path]
BINARY = ("dicom-seg", "dicom-seg-placed")
SEGMENTATIONS = (*BINARY, "dicom-seg-probability")


def planes_of(frames: int, rows: int, columns: int, seed: int = 0) -> NDArray[np.uint8]:
    """Two labels that never overlap, each absent from some frames."""
    labels = np.random.default_rng(seed).integers(0, 3, (frames, rows, columns))
    labels[::3][labels[::3] == 1] = 0
    labels[1::2][labels[1::2] == 2] = 0
    return np.stack([labels == 1, labels == 2], axis=1).astype(np.uint8)


def read_back(path: Path, source: pydicom.Dataset, frames: int) -> NDArray[np.uint8]:
    segmentation = hd.seg.segread(path)
    settings_ = {"assert_missing_frames_are_empty": True, "rescale_fractional": False, "ignore_spatial_locations": True}
    if frames > 1:
        numbers = list(range(1, frames + 1))
        found = segmentation.get_pixels_by_source_frame(source.SOPInstanceUID, numbers, **settings_)
    else:
        found = segmentation.get_pixels_by_source_instance([source.SOPInstanceUID], **settings_)
    return np.moveaxis(found, -1, 1)


@pytest.mark.parametrize("kind", SEGMENTATIONS)
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_highdicom_reads_every_pixel_back(
    kind: str, frames: int, tmp_path: Path, write_source: WriteSource, bundle: Bundle
) -> None:
    source = read_source(write_source(tmp_path / "x.dcm", frames))
    planes = planes_of(frames, 61, 83)
    if kind not in BINARY:
        planes = np.random.default_rng(1).integers(0, 256, planes.shape, np.uint8) * planes
    make_segmentation(source, bundle, planes, kind).save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", source.header, frames), planes)


@pytest.mark.parametrize("kind", SEGMENTATIONS)
def test_pydicom_reads_every_frame_back(kind: str, tmp_path: Path, write_source: WriteSource, bundle: Bundle) -> None:
    source = read_source(write_source(tmp_path / "x.dcm", 6))
    planes = planes_of(6, 61, 83)
    make_segmentation(source, bundle, planes, kind).save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    read = pydicom.dcmread(tmp_path / "seg.dcm")
    again = np.zeros_like(planes)
    for pixels, group in zip(read.pixel_array, read.PerFrameFunctionalGroupsSequence, strict=True):
        segment = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        reference = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert reference.ReferencedSOPInstanceUID == source.header.SOPInstanceUID
        assert reference.ReferencedSOPClassUID == source.header.SOPClassUID
        frame = reference.ReferencedFrameNumber
        assert group.FrameContentSequence[0].DimensionIndexValues == [segment, frame]
        again[frame - 1, segment - 1] = pixels
    np.testing.assert_array_equal(again, planes)
    if kind != "dicom-seg-placed":  # frames without pixels are left out
        assert read.NumberOfFrames == planes.any(axis=(2, 3)).sum()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 5), st.integers(0, 2**32 - 1), st.sampled_from(BINARY))
def test_any_mask_survives(
    tmp_path: Path, write_source: WriteSource, bundle: Bundle, frames: int, seed: int, kind: str
) -> None:
    source = read_source(write_source(tmp_path / "x.dcm", frames))
    planes = planes_of(frames, 61, 83, seed)
    make_segmentation(source, bundle, planes, kind).save_as(tmp_path / "s.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_back(tmp_path / "s.dcm", source.header, frames), planes)


@pytest.mark.parametrize("kind", SEGMENTATIONS)
def test_what_is_nowhere_has_one_empty_frame(
    kind: str, tmp_path: Path, write_source: WriteSource, bundle: Bundle
) -> None:
    source = read_source(write_source(tmp_path / "x.dcm", 4))
    planes = np.zeros((4, 2, 61, 83), np.uint8)
    planes[2, 0, 5:9, 5:9] = 1
    for given_planes, count in ((planes, 2), (np.zeros_like(planes), 2)):
        made = make_segmentation(source, bundle, given_planes, kind)
        assert made.NumberOfFrames == (8 if kind == "dicom-seg-placed" else count)
        made.save_as(tmp_path / "seg.dcm", enforce_file_format=True)
        np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", source.header, 4), given_planes)


def test_it_says_what_it_is_of_and_what_made_it(tmp_path: Path, write_source: WriteSource, bundle: Bundle) -> None:
    source = read_source(write_source(tmp_path / "x.dcm", 3))
    made = make_segmentation(source, bundle, planes_of(3, 61, 83))
    assert (made.PatientID, made.StudyInstanceUID, made.AccessionNumber) == ("4711", "1.2.3.2", "A1")
    assert (made.SegmentationType, made.Modality, made.SegmentsOverlap) == ("BINARY", "SEG", "NO")
    assert "FrameOfReferenceUID" not in made
    assert "not for diagnosis" in made.ContentDescription
    nerve, vessel = made.SegmentSequence
    assert (nerve.SegmentLabel, vessel.SegmentLabel) == ("nerve", "vessel")
    assert nerve.SegmentedPropertyCategoryCodeSequence[0].CodeValue == codes.SCT.AnatomicalStructure.value == "91723000"
    assert nerve.SegmentedPropertyTypeCodeSequence[0].CodeValue == "3057000"
    assert vessel.SegmentedPropertyTypeCodeSequence[0].CodeValue == codes.SCT.BloodVessel.value
    assert nerve.SegmentAlgorithmType == "AUTOMATIC"
    identified = nerve.SegmentationAlgorithmIdentificationSequence[0]
    assert identified.AlgorithmName == "EdgeFusion unet"
    assert "bundle" in identified.AlgorithmParameters
    (series,) = made.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.3.3"
    assert [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence] == ["1.2.3.1"]


def test_the_same_gives_the_same_and_anything_else_another(
    tmp_path: Path, write_source: WriteSource, bundle: Bundle
) -> None:
    planes, source = planes_of(3, 61, 83), read_source(write_source(tmp_path / "x.dcm", 3))
    paths = [tmp_path / "1.dcm", tmp_path / "2.dcm"]
    for path in paths:
        make_segmentation(source, bundle, planes).save_as(path, enforce_file_format=True)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    one = make_segmentation(source, bundle, planes)
    others = [
        make_segmentation(source, bundle, planes[:, ::-1].copy()),
        make_segmentation(source, replace(bundle, thresholds={"mask": 0.4, "presence": 0.5}), planes),
        make_segmentation(source, bundle, planes, "dicom-seg-placed"),
        make_segmentation(read_source(write_source(tmp_path / "y.dcm", 3, SOPInstanceUID="1.2.4")), bundle, planes),
    ]
    assert len({made.SOPInstanceUID for made in (one, *others)}) == 5
    assert others[0].SeriesInstanceUID == one.SeriesInstanceUID == others[3].SeriesInstanceUID
    assert others[1].SeriesInstanceUID != one.SeriesInstanceUID != others[2].SeriesInstanceUID


def test_placed_frames_lie_one_behind_the_other(tmp_path: Path, write_source: WriteSource, bundle: Bundle) -> None:
    source = read_source(write_source(tmp_path / "x.dcm", 3, FrameOfReferenceUID="1.2.3.9"))
    made = make_segmentation(source, bundle, planes_of(3, 61, 83), "dicom-seg-placed", (0.1, 0.2))
    assert made.FrameOfReferenceUID != "1.2.3.9"
    (measures,) = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert [float(side) for side in measures.PixelSpacing] == [0.1, 0.2]
    depths = [g.PlanePositionSequence[0].ImagePositionPatient[2] for g in made.PerFrameFunctionalGroupsSequence]
    assert depths == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("label", "study", "code"),
    [
        ("nerve", "kaggle", "36582005"),
        ("nerve", "usgra", "3057000"),
        ("Brachial_Plexus", "", "36582005"),
        ("median nerve", "", "3057000"),
        ("subclavian artery", "", "51114001"),
        ("something", "", "91723000"),
    ],
)
def test_codes_of_labels(label: str, study: str, code: str, bundle: Bundle) -> None:
    found = anatomy(label, replace(bundle, study_name=study))
    assert (found.value, found.scheme_designator) == (code, "SCT")


@pytest.mark.parametrize(
    "name", ["examples_rgb_color.dcm", "examples_ybr_color.dcm", "examples_palette.dcm", "ExplVR_BigEnd.dcm"]
)
@pytest.mark.parametrize("kind", SEGMENTATIONS)
def test_files_of_real_scanners(name: str, kind: str, tmp_path: Path, bundle: Bundle) -> None:
    source = read_source(Path(get_testdata_file(name)))
    planes = planes_of(source.frames, source.header.Rows, source.header.Columns)
    make_segmentation(source, bundle, planes, kind).save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", source.header, source.frames), planes)
