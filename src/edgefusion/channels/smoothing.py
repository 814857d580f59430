"""The Gaussian of the filters and edge maps."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]


def gaussian(image: Plane, sigma: float) -> Plane:
    """Smooth by a Gaussian cut off at three standard deviations; beyond the frame its border repeats.

    Args:
        image: H×W float32.
        sigma: Standard deviation, px.

    Returns:
        H×W float32.
    """
    side = 2 * math.ceil(3 * sigma) + 1
    smooth = cv2.GaussianBlur(image, (side, side), sigma, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(smooth, dtype=np.float32)
