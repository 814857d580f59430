"""What DICOM objects made of a source have in common: whom they are of, their identifiers, dates and codes."""

from __future__ import annotations

import hashlib
import logging
import re
import uuid
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from highdicom import AlgorithmIdentificationSequence
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID

import edgefusion
from edgefusion.bundle import Bundle
from edgefusion.data.dicom.file import read_header, sound_header
from edgefusion.errors import DataError
from edgefusion.inference.fingerprint import fingerprint
from edgefusion.inference.writers import DICOM_FORMATS, NOTICE

MANUFACTURER = "EdgeFusion"
"""Whose equipment every object names."""

# What these warn of names the values of elements, and those name patients.
warnings.filterwarnings("ignore", module=r"(highdicom|pydicom)\.")
for _library in ("highdicom", "pydicom"):
    logging.getLogger(_library).setLevel(logging.CRITICAL)

_NAMESPACE = uuid.UUID("8f0f6e3c-6b0e-5a55-9d7c-3f1f0f3c9a41")
_REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns")
_MAY_BE_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
_GEOMETRY = ("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PositionReferenceIndicator")

_TYPES = {
    "brachial plexus": Code("36582005", "SCT", "Brachial plexus structure"),
    "nerve": Code("3057000", "SCT", "Nerve structure"),
    "artery": Code("51114001", "SCT", "Arterial structure"),
    "vein": Code("29092000", "SCT", "Venous structure"),
    "vessel": Code("59820001", "SCT", "Blood vessel structure"),
    "muscle": Code("127954009", "SCT", "Skeletal muscle structure"),
    "tendon": Code("13024002", "SCT", "Tendon structure"),
    "bone": Code("272673000", "SCT", "Bone structure"),
}
_ANATOMY = Code("91723000", "SCT", "Anatomical structure")

_PLEXUS_STUDY = "kaggle"
"""Studies whose frames all show the brachial plexus: the challenge of 2016."""


@dataclass(frozen=True)
class Source:
    """The object that frames came from, without its pixels."""

    header: Dataset
    """Its elements; those that every derived object must have are there, if need be empty."""
    frames: int
    """Number of its frames."""

    @property
    def instance(self) -> Dataset:
        """What a reference to it holds."""
        reference = Dataset()
        reference.ReferencedSOPClassUID = self.header.SOPClassUID
        reference.ReferencedSOPInstanceUID = self.header.SOPInstanceUID
        return reference


def read_source(path: Path) -> Source:
    """Read what frames came from.

    Its frame of reference, if any, is left out: see ``docs/decisions/0010``.

    Raises:
        DataError: If it is no DICOM image, or lacks what is needed to refer to it.
    """
    with sound_header(path):
        header = read_header(path)
        missing = [name for name in _REQUIRED if not header.get(name)]
        frames = int(header.get("NumberOfFrames") or 1)
    if missing:
        raise DataError(f"{path} has no {', '.join(missing)}, so that nothing can refer to it.", "Export it again.")
    for name in _MAY_BE_EMPTY:
        if name not in header:
            setattr(header, name, "")
    for element in header:
        if element.VR in ("DA", "TM"):
            element.value = _of_today(str(element.value or ""), element.VR)
    for name in _GEOMETRY:
        header.pop(name, None)
    header.Modality = header.get("Modality") or "US"
    return Source(header, frames)


def _of_today(text: str, kind: str) -> str:
    """A date or time as DICOM writes it since 1993 (before, 2024.01.02 and 10:11:12), empty if it is neither."""
    plain = text.strip().replace(":", "") if kind == "TM" else text.strip().replace(".", "")
    pattern = r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?" if kind == "TM" else r"\d{4}(0[1-9]|1[0-2])[0-3]\d"
    return plain if re.fullmatch(pattern, plain) else ""


def series_attributes(source: Source, bundle: Bundle, kind: str, content: Iterable[bytes]) -> dict[str, Any]:
    """Identifiers of a new object: the same source, bundle and content give the same, anything else others.

    Args:
        source: What it was made of.
        bundle: What made it.
        kind: Which of ``DICOM_FORMATS`` it is; each has a series of its own.
        content: What it will hold.
    """
    made_by = fingerprint(bundle)
    digest = hashlib.sha256()
    for part in content:
        digest.update(part)
    header = source.header
    return {
        "series_instance_uid": derived_uid(header.SeriesInstanceUID, made_by, kind),
        "series_number": 9001 + DICOM_FORMATS.index(kind),
        "sop_instance_uid": derived_uid(header.SOPInstanceUID, made_by, kind, digest.hexdigest()),
        "instance_number": int(header.get("InstanceNumber") or 1),
    }


def derived_uid(*parts: str) -> UID:
    """A UID that the parts determine: a name-based UUID (RFC 9562, version 5) under the root 2.25 (PS3.5, B.2)."""
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(map(str, parts))).int}")


def stamp(made: Dataset, source: Source, description: str) -> None:
    """Make an object the same whenever it is made, and say what it is for.

    Its dates are those of the source's content, since the day of the computation would change its bytes.
    """
    header = source.header
    made.ContentDate = next((header[n].value for n in _dates("Date") if header.get(n)), None) or "19000101"
    made.ContentTime = next((header[n].value for n in _dates("Time") if header.get(n)), None) or "000000"
    for name in ("InstanceCreationDate", "InstanceCreationTime"):
        made.pop(name, None)
    for part in made.get("ContributingEquipmentSequence", []):
        part.pop("ContributionDateTime", None)
    made.SeriesDescription = f"{description}, {NOTICE}"


def _dates(suffix: str) -> list[str]:
    return [name + suffix for name in ("Content", "Acquisition", "Series", "Study")]


def equipment() -> dict[str, Any]:
    """Who made an object, as highdicom takes it."""
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MANUFACTURER,
        "software_versions": edgefusion.__version__,
        "device_serial_number": "none",
    }


def algorithm(bundle: Bundle) -> AlgorithmIdentificationSequence:
    """Which network found what is in an object."""
    return AlgorithmIdentificationSequence(
        name=f"EdgeFusion {bundle.model_name}",
        family=codes.DCM.ArtificialIntelligence,
        version=edgefusion.__version__,
        source="EdgeFusion",
        parameters=algorithm_parameters(bundle),
    )


def algorithm_parameters(bundle: Bundle) -> dict[str, str]:
    """What tells this bundle from others."""
    return {"bundle": fingerprint(bundle), "study": bundle.study_name or "not stated"}


def anatomy(label: str, bundle: Bundle) -> Code:
    """The SNOMED CT concept of a label, "anatomical structure" where its name says nothing more."""
    words = label.casefold().replace("_", " ").replace("-", " ")
    if words == "nerve" and bundle.study_name == _PLEXUS_STUDY:
        words = "brachial plexus"
    return next((code for name, code in _TYPES.items() if name in words), _ANATOMY)
