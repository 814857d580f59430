"""What a frame may look like on entry, and its one form inside."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefusion.errors import UsageError


def as_unit(image: NDArray[Any]) -> NDArray[np.float32]:
    """Bring a frame to grey levels in [0, 1].

    Args:
        image: H×W or H×W×3 (red, green, blue), uint8, uint16, or floating point within [0, 1].

    Returns:
        H×W float32 in [0, 1], C-contiguous; full scale of an integer type is 1.

    Raises:
        UsageError: If the shape, the type or the range is another.
    """
    image = np.asarray(image)
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or 0 in image.shape:
        raise UsageError(f"A frame is H×W or H×W×3, but this array has shape {image.shape}.")
    if image.dtype in (np.uint8, np.uint16):
        unit = image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    elif np.issubdtype(image.dtype, np.floating):
        unit = image.astype(np.float32)
        if not (np.isfinite(unit).all() and unit.min() >= 0 and unit.max() <= 1):
            raise UsageError("A floating-point frame must lie within [0, 1].", "Divide it by its full scale first.")
    else:
        raise UsageError(f"A frame of type {image.dtype} is not supported.", "Use uint8, uint16 or float in [0, 1].")
    if unit.ndim == 3:
        # ITU-R BT.601 luma, as every image reader here uses it.
        unit = unit @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
        np.clip(unit, 0, 1, out=unit)
    return np.ascontiguousarray(unit)
