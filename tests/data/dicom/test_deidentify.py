"""Copies keep the image and lose the person: attributes, nested ones, private ones, and burned-in names."""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG4HP41,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from edgefusion.cli import main
from edgefusion.data.dicom import open_dicom
from edgefusion.data.dicom.cleaning import clean_attributes
from edgefusion.data.dicom.deidentify import REPORT, deidentify
from edgefusion.data.dicom.profile import ACTIONS, Action
from edgefusion.data.dicom.pseudonyms import Pseudonyms
from edgefusion.data.ingest import ingest
from edgefusion.errors import DataError, UsageError

Write = Callable[..., Path]
TISSUE = {"left": 8, "top": 12, "right": 71, "bottom": 51, "cm": 0.01}
SECRETS = (
    b"Doe",
    b"Jane",
    b"MRN-00471",
    b"A-77",
    b"19700131",
    b"2024",
    b"Smith",
    b"St. Elsewhere",
)


def noise(count: int = 1, colour: bool = False, dtype: type = np.uint8) -> np.ndarray:
    shape = (count, 60, 80, 3) if colour else (count, 60, 80)
    return np.random.default_rng(1).integers(1, np.iinfo(dtype).max, shape, dtype=dtype)


def item(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def identifying() -> dict[str, Any]:
    """Attributes of several kinds and depths that name the patient, dates, people, places and devices."""
    return {
        "InstitutionName": "St. Elsewhere",
        "StudyDescription": "Neck of Jane Doe",
        "SeriesDescription": "interscalene",
        "OperatorsName": "Smith^Anna",
        "ImageComments": "MRN-00471 left",
        "InstanceCreationDate": "20240229",
        "AcquisitionDateTime": "20240229101112",
        "ContentDate": "20240229",
        "ContentTime": "101112",
        "FrameOfReferenceUID": generate_uid(),
        "SynchronizationFrameOfReferenceUID": "1.2.840.10008.15.1.1",
        # Not in the profile, but here it repeats a name.
        "TransducerType": "LINEAR",
        "ProcessingFunction": "Doe preset",
        # Nor are these, but they are of a person, a time and an object all the same.
        "EvaluatorName": "Smith^Anna",
        "SecondaryReviewDate": "20240229",
        "MultiFrameSourceSOPInstanceUID": "1.2.3",
        "ReferencedImageSequence": [
            item(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.6.1", ReferencedSOPInstanceUID="1.2.3")
        ],
        "RequestAttributesSequence": [item(ScheduledProcedureStepDescription="Jane Doe")],
        "AnatomicRegionSequence": [
            item(
                CodeValue="45048000",
                CodingSchemeDesignator="SCT",
                CodeMeaning="Neck",
                ContextUID="1.2.3.4",
                AnatomicRegionModifierSequence=[
                    item(CodeValue="7771000", CodingSchemeDesignator="SCT", CodeMeaning="Left", PatientName="Doe^Jane")
                ],
            )
        ],
    }


@pytest.fixture
def copied(tmp_path: Path, write_ultrasound: Write) -> Callable[..., tuple[Path, Path]]:
    def copy(frames: np.ndarray, syntax: str = ExplicitVRLittleEndian, **attributes: Any) -> tuple[Path, Path]:
        source = write_ultrasound(tmp_path / "Doe.dcm", frames, syntax, **{"regions": [TISSUE]} | attributes)
        (copy,) = deidentify(source, tmp_path / "out", key=tmp_path / "key")
        return source, copy

    return copy


def walk(dataset: Dataset) -> Iterator[Any]:
    for element in dataset:
        yield element
        if element.VR == "SQ":
            for nested in element.value:
                yield from walk(nested)


SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEG2000Lossless)


@pytest.mark.parametrize("syntax", [*SYNTAXES, JPEGLSLossless])
@pytest.mark.parametrize("kind", ["grey", "deep", "colour"])
def test_the_image_is_kept_and_the_rest_is_blank(
    copied: Callable[..., tuple[Path, Path]], syntax: str, kind: str
) -> None:
    frames = noise(3, kind == "colour", np.uint16 if kind == "deep" else np.uint8)
    source, copy = copied(frames, syntax)
    before, after = (np.stack(list(open_dicom(path).read())) for path in (source, copy))
    inside = np.s_[:, 12:52, 8:72]
    np.testing.assert_array_equal(after[inside], before[inside])
    after[inside] = 0
    assert not after.any()
    compressed = dcmread(copy).file_meta.TransferSyntaxUID == JPEG2000Lossless
    assert compressed == (syntax in (RLELossless, JPEG2000Lossless, JPEGLSLossless))
    assert (open_dicom(copy).region, open_dicom(copy).spacing) == (
        open_dicom(source).region,
        open_dicom(source).spacing,
    )


def test_black_is_black_in_inverted_pictures_too(copied: Callable[..., tuple[Path, Path]]) -> None:
    _, copy = copied(noise(1), PhotometricInterpretation="MONOCHROME1")
    frame = next(open_dicom(copy).read())
    assert not frame[:12].any()
    assert frame[12:52, 8:72].any()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_palettes_and_signed_values_keep_their_meaning(tmp_path: Path, write_ultrasound: Write, syntax: str) -> None:
    table = np.arange(255, -1, -1).astype(np.uint16) * 257
    palette: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        palette[f"{colour}PaletteColorLookupTableData"] = table.tobytes()
    signed = {"PixelRepresentation": 1, "BitsStored": 12, "HighBit": 11}
    stored = np.random.default_rng(0).integers(-2048, 2047, (2, 60, 80)).astype(np.int16)
    for name, frames, attributes in (("palette", noise(2), palette), ("signed", stored, signed)):
        path = write_ultrasound(tmp_path / name / "x", frames, syntax, regions=[TISSUE], **attributes)
        (copy,) = deidentify(path, tmp_path / name / "out", key=tmp_path / "key")
        before, after = (np.stack(list(open_dicom(file).read())) for file in (path, copy))
        np.testing.assert_array_equal(after[:, 12:52, 8:72], before[:, 12:52, 8:72])
        after[:, 12:52, 8:72] = after[0, 0, 0]
        assert len(np.unique(after)) == 1


def test_a_video_is_written_frame_by_frame_without_further_loss(
    tmp_path: Path, write_ultrasound: Write, encode_video: Callable[..., bytes]
) -> None:
    frames = np.stack([np.full((64, 96, 3), level, np.uint8) for level in (40, 90, 140, 190)])
    path = write_ultrasound(tmp_path / "x", frames, regions=[TISSUE])
    dataset = dcmread(path)
    dataset.PixelData = encapsulate([encode_video(frames, "libx264", "mp4")])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.PhotometricInterpretation, dataset.file_meta.TransferSyntaxUID = "YBR_PARTIAL_420", MPEG4HP41
    dataset.save_as(path)
    (copy,) = deidentify(path, tmp_path / "out", key=tmp_path / "key")
    assert dcmread(copy).file_meta.TransferSyntaxUID == JPEG2000Lossless
    before, after = (np.stack(list(open_dicom(file).read())) for file in (path, copy))
    inside = np.s_[:, 12:52, 8:72]
    np.testing.assert_array_equal(after[inside], before[inside])
    assert len(after) == 4
    assert not after[:, :12].any()


def test_every_image_of_tissue_is_kept(copied: Callable[..., tuple[Path, Path]]) -> None:
    other = {"left": 0, "top": 55, "right": 9, "bottom": 59}
    flow = {"left": 40, "top": 0, "right": 79, "bottom": 11, "kind": 2}
    _, copy = copied(noise(1), regions=[TISSUE, other, flow])
    frame = next(open_dicom(copy).read())
    assert frame[55:, :10].all()
    assert not frame[:12].any()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless])
def test_nothing_identifying_is_in_the_bytes(copied: Callable[..., tuple[Path, Path]], syntax: str) -> None:
    source, copy = copied(np.full((1, 60, 80), 9, np.uint8), syntax, **identifying())
    before = source.read_bytes()
    assert all(secret in before for secret in SECRETS)
    after = copy.read_bytes()
    originals = [dcmread(source)[name].value for name in ("SOPInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")]
    assert not [uid for uid in originals if uid.encode() in after]
    # Digits may also turn up in the new unique identifiers.
    assert not [secret for secret in SECRETS if secret in after and not secret.isdigit()]
    assert not [e for e in walk(dcmread(copy)) if e.VR in ("DA", "DT", "TM", "SH", "LO") and "2024" in str(e.value)]
    assert "Doe" not in copy.name


def test_private_and_unknown_attributes_and_overlays_go(tmp_path: Path, write_ultrasound: Write) -> None:
    path = write_ultrasound(tmp_path / "x.dcm", noise(1), regions=[TISSUE])
    dataset = dcmread(path)
    block = dataset.private_block(0x0011, "ACME", create=True)
    block.add_new(0x01, "LO", "Doe^Jane")
    dataset.SequenceOfUltrasoundRegions[0].add_new(0x00190010, "LO", "ACME")
    dataset.add_new(0x60000010, "US", 8)
    dataset.add_new(0x60003000, "OW", b"Doe^Jane")
    dataset.add_new(0x50003000, "OW", b"Doe^Jane")
    dataset.add_new(0x00280999, "LO", "Doe^Jane")
    dataset.add_new("TransducerType", "OB", b"Doe^Jane")
    dataset.add_new(0x7FE11010, "OB", b"Doe^Jane")
    dataset.preamble = b"Doe^Jane" * 16
    dataset.file_meta.SourceApplicationEntityTitle = "DOE"
    dataset.save_as(path)
    (copy,) = deidentify(path, tmp_path / "out", key=tmp_path / "key")
    assert b"Doe" not in copy.read_bytes()
    assert b"ACME" not in copy.read_bytes()
    cleaned = dcmread(copy)
    assert not [
        element for element in walk(cleaned) if element.tag.is_private or element.tag.group >> 8 in (0x50, 0x60)
    ]
    assert "SourceApplicationEntityTitle" not in cleaned.file_meta


def test_the_actions_of_the_profile(copied: Callable[..., tuple[Path, Path]], tmp_path: Path) -> None:
    source, copy = copied(
        noise(1), **identifying(), ClinicalTrialSponsorName="Doe Ltd.", ContentSequence=[item(TextValue="x")]
    )
    before, after = dcmread(source), dcmread(copy)
    names = Pseudonyms(bytes.fromhex((tmp_path / "key").read_text()))
    assert after.PatientID == after.PatientName == names.name("patient", "MRN-00471")
    for keyword in ("InstitutionName", "StudyDescription", "OperatorsName", "ImageComments", "AcquisitionDateTime"):
        assert keyword not in after
    for keyword in (
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "StudyID",
        "PatientBirthDate",
        "PatientSex",
        "ContentDate",
    ):
        assert after[keyword].value in ("", None)
    assert after.ClinicalTrialSponsorName == "REMOVED"
    assert after.SOPInstanceUID == after.file_meta.MediaStorageSOPInstanceUID == names.uid(before.SOPInstanceUID)
    assert after.ReferencedImageSequence[0].ReferencedSOPInstanceUID == names.uid("1.2.3")
    assert after.ReferencedImageSequence[0].ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.6.1"
    assert after.SynchronizationFrameOfReferenceUID == "1.2.840.10008.15.1.1"
    assert after.AnatomicRegionSequence[0].CodeValue == "45048000"
    assert not after.AnatomicRegionSequence[0].AnatomicRegionModifierSequence[0].PatientName
    assert after.TransducerType == "LINEAR"
    for keyword in ("ProcessingFunction", "EvaluatorName", "SecondaryReviewDate"):
        assert not after[keyword].value
    assert after.MultiFrameSourceSOPInstanceUID == names.uid("1.2.3")
    assert (after.PatientIdentityRemoved, after.BurnedInAnnotation) == ("YES", "NO")
    assert after.LongitudinalTemporalInformationModified == "REMOVED"
    assert [code.CodeValue for code in after.DeidentificationMethodCodeSequence] == ["113100", "113101"]


def test_the_profile_is_the_standards() -> None:
    """Samples of table E.1-1, one of every action, and the attributes of an ultrasound image that must stay."""
    names = {"PatientName": "Z", "PatientID": "Z", "SOPInstanceUID": "U", "PatientAge": "X", "PatientComments": "X"}
    names |= {"StudyDate": "Z", "SeriesDate": "X", "ContentDate": "Z", "PersonName": "D", "StationName": "X"}
    names |= {"DeviceSerialNumber": "X", "RequestAttributesSequence": "X", "IconImageSequence": "X"}
    assert {name: ACTIONS[_tag(name)].value for name in names} == names
    for name in (
        "Modality",
        "Rows",
        "SequenceOfUltrasoundRegions",
        "FrameTime",
        "Manufacturer",
        "ImageType",
        "PatientOrientation",
    ):
        assert _tag(name) not in ACTIONS
    assert len(ACTIONS) > 600
    assert set(ACTIONS.values()) == set(Action)


def _tag(name: str) -> int:
    tag = tag_for_keyword(name)
    assert tag is not None
    return tag


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=4, max_size=20), st.integers(0, 3))
def test_a_name_is_gone_wherever_it_stands(name: str, depth: int) -> None:
    header = item(PatientName=f"{name}^Xx", PatientID="1234", SOPClassUID="1.2", SOPInstanceUID="1.3")
    place = header
    for _ in range(depth):
        inner = item(CodeMeaning=f"of {name}")
        place.AnatomicRegionSequence = [inner]
        place = inner
    place.TransducerData = ["x", name.upper()]
    cleaned = clean_attributes(header, "someone", Pseudonyms(b"k" * 32))
    # A name may happen to be a word of what was added.
    del (
        cleaned.DeidentificationMethod,
        cleaned.DeidentificationMethodCodeSequence,
        cleaned.PatientID,
        cleaned.PatientName,
    )
    texts = [str(element.value or "").lower() for element in walk(cleaned) if element.VR in ("LO", "PN", "SH")]
    assert not [text for text in texts if name.lower() in text]
    # The original is as it was.
    assert header.PatientName == f"{name}^Xx"


class TestRefusals:
    def reasons(self, folder: Path) -> list[str]:
        with (folder / REPORT).open(encoding="utf-8") as file:
            return [row["reason"] for row in csv.DictReader(file)]

    @pytest.mark.parametrize(
        "regions",
        [[], [{"left": 0, "top": 0, "right": 79, "bottom": 59}], [TISSUE | {"right": 200}], [TISSUE | {"kind": 2}]],
    )
    def test_without_a_stated_place_there_is_no_copy(
        self, tmp_path: Path, write_ultrasound: Write, regions: list[dict[str, Any]]
    ) -> None:
        path = write_ultrasound(tmp_path / "Doe.dcm", noise(1), regions=regions)
        with pytest.raises(DataError, match="No de-identified copy was written"):
            deidentify(path, tmp_path / "out", key=tmp_path / "key")
        assert "does not state which part of the frame" in self.reasons(tmp_path / "out")[0]
        assert [file.name for file in (tmp_path / "out").iterdir()] == [REPORT]

    def test_a_damaged_file_leaves_no_copy(
        self, tmp_path: Path, write_ultrasound: Write, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_ultrasound(tmp_path / "in" / "a.dcm", noise(1), regions=[TISSUE])
        broken = write_ultrasound(tmp_path / "in" / "Doe.dcm", noise(3), JPEG2000Lossless, regions=[TISSUE])
        content = bytearray(broken.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 4000] = b"\xff" * 4000
        broken.write_bytes(bytes(content))
        copies = deidentify(tmp_path / "in", tmp_path / "out", key=tmp_path / "key")
        assert len(copies) == 1
        assert {path.name for path in (tmp_path / "out").iterdir()} == {copies[0].name, REPORT}
        assert "Doe" not in (tmp_path / "out" / REPORT).read_text() + capsys.readouterr().err

    def test_copies_do_not_go_into_the_source(self, tmp_path: Path, write_ultrasound: Write) -> None:
        write_ultrasound(tmp_path / "in" / "a.dcm", noise(1), regions=[TISSUE])
        with pytest.raises(UsageError, match="lies in the source"):
            deidentify(tmp_path / "in", tmp_path / "in" / "out", key=tmp_path / "key")


def test_objects_stay_related_and_copies_give_the_same_study(
    tmp_path: Path, write_ultrasound: Write, make_tissue: Callable[..., np.ndarray]
) -> None:
    study_uid = generate_uid()
    for seed, name in enumerate("ab"):
        write_ultrasound(
            tmp_path / "in" / name, make_tissue(seed)[None], RLELossless, regions=[TISSUE], StudyInstanceUID=study_uid
        )
    command = ["ingest", str(tmp_path / "in"), "-o", str(tmp_path / "study"), "--key", str(tmp_path / "key")]
    assert main([*command, "--deidentify", str(tmp_path / "out")]) == 0
    copies = [dcmread(path) for path in sorted((tmp_path / "out").glob("*.dcm"))]
    assert len({copy.StudyInstanceUID for copy in copies}) == 1
    assert len({copy.SOPInstanceUID for copy in copies}) == 2
    direct = ingest(tmp_path / "in", tmp_path / "direct", key=tmp_path / "key")
    by_copy = ingest(tmp_path / "out", tmp_path / "again", key=tmp_path / "key")
    assert sorted(direct.frames["sha256"]) == sorted(by_copy.frames["sha256"])
    assert by_copy.frames["patient_id"].nunique() == 1


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("colour", [False, True])
def test_dciodvfy_finds_no_error(
    copied: Callable[..., tuple[Path, Path]], syntax: str, count: int, colour: bool
) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian: dicom3tools) is not installed")
    source, copy = copied(noise(count, colour), syntax)
    before, after = (_errors(path) for path in (source, copy))
    assert after <= before
    assert after == set()


def _errors(path: Path) -> set[str]:
    answer = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    return {line for line in (answer.stdout + answer.stderr).splitlines() if line.startswith("Error")}
