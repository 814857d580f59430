"""Taking what identifies a person out of the attributes of a DICOM object."""

from __future__ import annotations

import copy
import re
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataset import FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.uid import UID

from edgefusion.data.dicom.file import COPY_AGAIN
from edgefusion.data.dicom.profile import ACTIONS, Action
from edgefusion.data.dicom.pseudonyms import Pseudonyms
from edgefusion.errors import DataError

_STANDARD_ROOT = "1.2.840.10008."
_TEXT = ("LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
_BYTES = ("OB", "OD", "OF", "OL", "OV", "OW", "UN")
_NAMES_AND_TIMES = ("DA", "DT", "PN", "TM")
_NAMING = (
    "AccessionNumber",
    "OperatorsName",
    "OtherPatientIDs",
    "OtherPatientNames",
    "PatientAddress",
    "PatientBirthName",
    "PatientID",
    "PatientMotherBirthName",
    "PatientName",
    "PatientTelephoneNumbers",
    "PerformingPhysicianName",
    "ReferringPhysicianName",
)
_LONG_NAME = 4
_MAX_NAMES = 500
_DUMMIES: dict[str, Any] = {
    "AE": "REMOVED",
    "AS": "000Y",
    "CS": "REMOVED",
    "DA": "19000101",
    "DT": "19000101000000",
    "TM": "000000",
    "OB": b"\0\0",
    "UN": b"\0\0",
}
_REMOVED = "REMOVED"
# Curves and overlays, whose data the profile removes, are nothing without it.
_REPEATING = (0x5000, 0x6000)
_PIXELS = 0x7FE0


def clean_attributes(header: Dataset, patient: str, pseudonyms: Pseudonyms) -> Dataset:
    """Apply the Basic Application Level Confidentiality Profile of DICOM PS3.15 to an object.

    Beyond the profile, names, dates and times that its table passes over are emptied, as is text that repeats a name or
    number of the patient's or a physician's; references to objects and frames of reference are replaced wherever they
    stand; and what the dictionary of attributes does not know is removed as private attributes are.

    Args:
        header: The object without its pixel data.
        patient: The pseudonym that takes the place of the patient's name and number.
        pseudonyms: What unique identifiers are replaced by, the same in every object under one key.

    Returns:
        A cleaned copy, with a file header of its own.

    Raises:
        DataError: If the object states absurdly many names.
    """
    names = _names(header)
    header = copy.deepcopy(Dataset(header))
    _clean(header, pseudonyms, names)
    header.PatientID = header.PatientName = patient
    header.PatientIdentityRemoved = "YES"
    header.LongitudinalTemporalInformationModified = "REMOVED"
    header.DeidentificationMethod = "EdgeFusion: PS3.15 basic profile, pixels outside image blanked"
    header.DeidentificationMethodCodeSequence = [
        _code("113100", "Basic Application Confidentiality Profile"),
        _code("113101", "Clean Pixel Data Option"),
    ]
    header.BurnedInAnnotation = "NO"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = header.SOPClassUID
    meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.file_meta = meta
    header.preamble = b"\0" * 128
    return header


def _clean(dataset: Dataset, pseudonyms: Pseudonyms, names: re.Pattern[str] | None) -> None:
    for tag in list(dataset.keys()):
        if tag.is_private or tag.element == 0 or tag.group & 0xFF00 in _REPEATING or tag.group == _PIXELS:
            del dataset[tag]
            continue
        action = ACTIONS.get(int(tag)) or _beyond(tag)
        # Before its value is looked at: what is to go may be damaged.
        if action is Action.REMOVE:
            del dataset[tag]
            continue
        element = dataset[tag]
        if action is Action.EMPTY:
            element.value = None if element.VR != "SQ" else []
        elif action is Action.DUMMY:
            _replace(element)
        elif action is Action.NEW_UID:
            element.value = _new_uids(element.value, pseudonyms)
        elif element.VR == "SQ":
            for item in element.value:
                _clean(item, pseudonyms, names)
        # Bytes where there should be text or numbers cannot be looked into.
        elif element.VR in _BYTES and element.VR not in dictionary_VR(tag):
            del dataset[tag]
        elif element.VR in _TEXT and _repeats(element.value, names):
            element.value = None


def _beyond(tag: BaseTag) -> Action | None:
    """What becomes of names, times and references to objects that the table of the profile passes over."""
    if not dictionary_has_tag(tag):
        return Action.REMOVE
    keyword = keyword_for_tag(tag)
    if dictionary_VR(tag) in _NAMES_AND_TIMES:
        return Action.EMPTY
    return Action.NEW_UID if "InstanceUID" in keyword or "FrameOfReferenceUID" in keyword else None


def _replace(element: DataElement) -> None:
    if element.VR == "SQ":
        element.value = []
    elif element.VR == "UI":
        element.value = None
    else:
        element.value = _DUMMIES.get(element.VR, _REMOVED)


def _new_uids(value: Any, pseudonyms: Pseudonyms) -> Any:
    if isinstance(value, MultiValue | list):
        return [_new_uids(item, pseudonyms) for item in value]
    # What the standard itself defines identifies nobody, and means something.
    if not value or str(value).startswith(_STANDARD_ROOT):
        return value
    return UID(pseudonyms.uid(str(value)))


def _names(header: Dataset) -> re.Pattern[str] | None:
    """What finds the names and numbers of persons that an object states: short names as whole words only."""
    parts: set[str] = set()
    for keyword in _NAMING:
        value = header.get(keyword)
        for item in value if isinstance(value, MultiValue | list) else [value]:
            text = str(item or "").strip()
            parts |= {text, *re.split(r"[\s^=]+", text)}
    if len(parts) > _MAX_NAMES:
        raise DataError(f"It states more than {_MAX_NAMES} names, which cannot all be looked for.", COPY_AGAIN)
    patterns = [re.escape(part) for part in parts if len(part) >= _LONG_NAME]
    patterns += [rf"\b{part}\b" for part in parts if 2 <= len(part) < _LONG_NAME and part.isalpha()]
    return re.compile("|".join(patterns), re.IGNORECASE) if patterns else None


def _repeats(value: Any, names: re.Pattern[str] | None) -> bool:
    items = value if isinstance(value, MultiValue | list) else [value]
    return names is not None and any(names.search(str(item or "")) for item in items)


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item
