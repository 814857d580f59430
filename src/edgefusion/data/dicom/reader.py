"""Opening a DICOM file, a single frame or a cine, as a clip."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from edgefusion.data.clip import Clip
from edgefusion.data.dicom.file import DicomFile, opened, sound_header
from edgefusion.data.dicom.grey import grey_scale
from edgefusion.data.dicom.pixels import check_image, iter_samples
from edgefusion.data.dicom.regions import region_and_spacing

_FRAME_TIME_VECTOR = 0x00181065


def open_dicom(path: Path | str) -> Clip:
    """Open a DICOM file; its frames are decoded one by one when they are asked for.

    Read are native and deflated pixels in either byte order, RLE, JPEG (baseline, extended, lossless), JPEG-LS, JPEG
    2000 and MPEG-2, H.264 and H.265. How stored values become grey stands at ``edgefusion.data.dicom.grey.grey_scale``.

    Args:
        path: The file, with or without preamble.

    Returns:
        Its clip. Spacing and region are those of the largest 2D image of tissue among its ultrasound regions.

    Raises:
        DataError: If the file cannot be read, is no DICOM image, or is of a kind that is not read. Damage to pixels
            shows only when they are read.
    """
    path = Path(path).resolve()
    with opened(path) as file, sound_header(path):
        count = check_image(file)
        grey_scale(file.header)
        region, spacing = region_and_spacing(file.header)
        rate = frame_rate(file.header) if count > 1 else None

    def read() -> Iterator[NDArray[Any]]:
        with opened(path) as file:
            yield from iter_grey(file, check_image(file))

    return Clip(path, read, count, rate, spacing, region)


def iter_grey(file: DicomFile, count: int) -> Iterator[NDArray[Any]]:
    """Yield the frames of an open file, H×W uint8 or uint16, which raises a ``DataError`` where one is damaged."""
    to_grey = grey_scale(file.header)
    for samples in iter_samples(file, count):
        yield to_grey(samples)


def frame_rate(header: Dataset) -> float | None:
    """Frames a second: by the frame time (or the mean of its vector), else the cine rate; None if none is stated."""
    times = _numbers(header.get("FrameTimeVector"))[1:]
    mean_ms = float(np.mean(times)) if times else 0.0
    stated_ms = next(iter(_numbers(header.get("FrameTime"))), 0.0)
    by_vector = header.get("FrameIncrementPointer") == _FRAME_TIME_VECTOR
    for milliseconds in (mean_ms, stated_ms) if by_vector else (stated_ms, mean_ms):
        if milliseconds > 0:
            return 1000.0 / milliseconds
    rates = [*_numbers(header.get("CineRate")), *_numbers(header.get("RecommendedDisplayFrameRate"))]
    return next((rate for rate in rates if rate > 0), None)


def _numbers(value: Any) -> list[float]:
    try:
        numbers = [float(number) for number in ([value] if isinstance(value, str | float | int) else value or [])]
    except (TypeError, ValueError):
        return []
    return [number for number in numbers if math.isfinite(number)]
