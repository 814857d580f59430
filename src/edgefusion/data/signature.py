"""Telling DICOM files by their first bytes, without importing what decodes them."""

from __future__ import annotations

import struct
from pathlib import Path

from edgefusion.data.readers import SUFFIXES as PICTURES
from edgefusion.files import is_hidden
from edgefusion.remote import Place, RemotePath, place

SUFFIXES = (".dcm", ".dicom")
"""File name endings of DICOM files, in lower case; many have none."""

# A file without preamble starts with an element of one of these groups, and no picture or film starts like that.
_FIRST_GROUPS = (0x0002, 0x0008)
_LAST_FIRST_ELEMENT = 0x0018


def is_dicom(path: Place | str) -> bool:
    """Whether a file is DICOM by its content, or claims to be by its name.

    Files without the 128 bytes of preamble are recognised by their first element, in either byte order.
    """
    path = place(path)
    if isinstance(path, RemotePath):
        return False  # from object storage come pictures only, and asking costs a request
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return False
    return head[128:] == b"DICM" or _starts_with_element(head) or path.suffix.lower() in SUFFIXES


def holds_dicom(source: Path) -> bool:
    """Whether a source of frames is a DICOM file, or a folder of them.

    A folder with a DICOMDIR is, and one with DICOM files as long as there is no picture in it: the pictures on a disk
    with a DICOMDIR are mere icons.
    """
    if source.is_file():
        return is_dicom(source)
    if not source.is_dir() or (source / "study.yaml").exists():
        return False
    if any(path.name.upper() == "DICOMDIR" for path in source.iterdir()):
        return True
    files = [path for path in source.rglob("*") if path.is_file() and not is_hidden(path, source)]
    if any(path.suffix.lower() in PICTURES for path in files):
        return False
    return any(is_dicom(path) for path in files)


def _starts_with_element(head: bytes) -> bool:
    if len(head) < 8:
        return False
    for order in "<>":
        group, element = struct.unpack(f"{order}HH", head[:4])
        if group in _FIRST_GROUPS and element <= _LAST_FIRST_ELEMENT:
            (length,) = struct.unpack(f"{order}L", head[4:8])
            return length <= 128 or head[4:6].isalpha()
    return False
