"""Opening a file of any kind that holds frames."""

from __future__ import annotations

from pathlib import Path

from edgefusion.data import nifti, readers, video
from edgefusion.data.clip import Clip
from edgefusion.data.signature import is_dicom
from edgefusion.errors import DataError
from edgefusion.remote import Place, RemotePath, place

SUFFIXES = (*readers.SUFFIXES, *video.SUFFIXES, *nifti.SUFFIXES)
"""File name endings of what can be opened, in lower case. DICOM files are known by their content."""


def is_known(path: Path) -> bool:
    """Whether a file has one of the ``SUFFIXES``."""
    return path.name.lower().endswith(SUFFIXES)


def is_clip(path: Path) -> bool:
    """Whether a file is, by its name, of a kind that holds any number of frames: a video, or NIfTI."""
    return path.name.lower().endswith((*video.SUFFIXES, *nifti.SUFFIXES))


def stem_of(path: Path) -> str:
    """A file's name without its ending, which for ``x.nii.gz`` is all of ``.nii.gz``."""
    return path.name[: -len(".nii.gz")] if path.name.lower().endswith(".nii.gz") else path.stem


def open_clip(path: Place | str) -> Clip:
    """Open the frames of a file, whatever its kind.

    Args:
        path: A picture (PNG, TIFF, JPEG), a TIFF file of several pages, a video (``video.SUFFIXES``), a NIfTI file, or
            a DICOM file; on object storage a picture of one page.

    Returns:
        The clip; a picture gives one frame.

    Raises:
        DataError: If the file cannot be read, or is of no known kind.
    """
    path = place(path)
    if isinstance(path, RemotePath):
        if path.suffix.lower() not in readers.SUFFIXES:
            raise DataError(f"{path} is not a picture; object storage is for pictures alone.", "Copy it to a folder.")
        return Clip(Path(path.name), lambda: iter([readers.read_frame(path)]), count=1)
    path = path.resolve()
    if is_dicom(path):
        from edgefusion.data.dicom import open_dicom

        return open_dicom(path)
    if path.suffix.lower() in video.SUFFIXES:
        return video.open_video(path)
    if nifti.is_nifti(path):
        return nifti.open_nifti(path)
    pages = readers.count_pages(path)
    if pages > 1:
        return Clip(path, lambda: readers.read_pages(path), count=pages)
    return Clip(path, lambda: iter([readers.read_frame(path)]), count=1)


def has_many_frames(path: Place | str) -> bool:
    """Whether a file is a clip and not a still picture; one that cannot be opened is taken for what its name says."""
    try:
        clip = open_clip(path)
    except DataError:
        return place(path).suffix.lower() in video.SUFFIXES
    return clip.rate is not None or clip.count != 1
