"""Opening a file of any kind that holds frames."""

from __future__ import annotations

from pathlib import Path

from edgefusion.data.clip import Clip
from edgefusion.data.readers import read_frame
from edgefusion.data.signature import is_dicom


def open_clip(path: Path | str) -> Clip:
    """Open the frames of a file, whatever its kind.

    Args:
        path: A picture (PNG, TIFF, JPEG) or a DICOM file.

    Returns:
        The clip; a picture gives one frame.

    Raises:
        DataError: If the file cannot be read, or is of no known kind.
    """
    path = Path(path).resolve()
    if is_dicom(path):
        from edgefusion.data.dicom import open_dicom

        return open_dicom(path)
    return Clip(path, lambda: iter([read_frame(path)]), count=1)
