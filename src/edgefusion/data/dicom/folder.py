"""Finding the DICOM files that a person means: one file, those of a folder, or those that a DICOMDIR lists."""

from __future__ import annotations

from pathlib import Path

from pydicom import Dataset
from pydicom.uid import (
    MediaStorageDirectoryStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from edgefusion.data.dicom.file import read_header, sop_class, sound_header
from edgefusion.data.signature import is_dicom
from edgefusion.errors import DataError
from edgefusion.files import is_hidden

ULTRASOUND_CLASSES = (
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    "1.2.840.10008.5.1.4.1.1.6",  # Ultrasound Image Storage (retired)
    "1.2.840.10008.5.1.4.1.1.3",  # Ultrasound Multi-frame Image Storage (retired)
)
"""SOP classes of ultrasound images, those of old scanners among them."""

CAPTURE_CLASSES = (
    SecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
)
"""SOP classes of pictures of a screen, as which ultrasound is often stored."""


def dicom_files(source: Path) -> list[Path]:
    """The DICOM files of a source, in the order of their paths; a DICOMDIR gives those that it lists.

    Raises:
        DataError: If a DICOMDIR cannot be read, or lists a file outside its folder.
    """
    if source.is_dir():
        return sorted(
            path
            for path in source.rglob("*")
            if path.is_file() and not is_hidden(path, source) and is_dicom(path) and not _is_index(path)
        )
    return _listed(source) if _is_index(source) else [source]


def is_ultrasound(header: Dataset) -> bool:
    """Whether an object is an ultrasound image by its class, or a captured screen that says so by its modality."""
    kind = sop_class(header)
    captured = kind in CAPTURE_CLASSES and str(header.get("Modality")) in ("US", "OT")
    return bool(kind in ULTRASOUND_CLASSES or captured)


def _is_index(path: Path) -> bool:
    if not path.name.upper().startswith("DICOMDIR"):
        return False
    try:
        header = read_header(path)
        with sound_header(path):
            return bool(sop_class(header) == MediaStorageDirectoryStorage)
    except DataError:
        return False


def _listed(index: Path) -> list[Path]:
    files = []
    with sound_header(index):
        for record in read_header(index).get("DirectoryRecordSequence") or []:
            parts = record.get("ReferencedFileID") or []
            parts = [parts] if isinstance(parts, str) else list(parts)
            if any(part in ("", ".", "..") or "/" in part or "\\" in part for part in parts):
                raise DataError(f"{index} lists a file outside its folder.", "Do not use this DICOMDIR.")
            if parts:
                files.append(_on_disk(index.parent, parts))
    if not files:
        raise DataError(f"{index} lists no file.", "Give the folder instead.")
    return sorted(set(files))


def _on_disk(folder: Path, parts: list[str]) -> Path:
    """The file of a listed name, which some systems show in small letters though the list has capitals."""
    path = folder
    for part in parts:
        exact = path / part
        if not exact.exists() and path.is_dir():
            same = (other for other in path.iterdir() if other.name.casefold() == part.casefold())
            exact = next(same, exact)
        path = exact
    return path
