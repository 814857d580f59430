"""The Gaussian of the filters and edge maps."""

from __future__ import annotations

import math
from functools import cache

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
    side = len(gaussian_kernel(sigma))
    smooth = cv2.GaussianBlur(image, (side, side), sigma, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(smooth, dtype=np.float32)


@cache
def gaussian_kernel(sigma: float) -> Plane:
    """The weights of that Gaussian along one axis: float32, of odd length, summing to 1."""
    return np.asarray(cv2.getGaussianKernel(2 * math.ceil(3 * sigma) + 1, sigma, cv2.CV_32F)[:, 0])
