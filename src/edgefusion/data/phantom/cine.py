"""A simulated clip: a hand that pans over the neck, from few phantoms, since a phantom takes a tenth of a second."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefusion.data.phantom.study import simulate_frame

_PHANTOMS = 4
_PERIOD = 90
"""Frames from one phantom to the next."""


def simulate_clip(seed: int, count: int, size: tuple[int, int] = (420, 580)) -> Iterator[NDArray[np.uint8]]:
    """Yield ``count`` frames, H×W uint8: phantoms of one patient blend into each other, pan, and flicker with noise."""
    rng = np.random.default_rng(seed)
    height, width = size
    images = [simulate_frame(seed, 0, 2 * number, size).image for number in range(_PHANTOMS)]
    grain = rng.normal(0, 5, (height + 32, width + 32)).astype(np.float32)
    for number in range(count):
        which, share = divmod(number / _PERIOD, 1)
        one, other = images[int(which) % _PHANTOMS], images[(int(which) + 1) % _PHANTOMS]
        tissue = cv2.addWeighted(one, 1 - share, other, share, 0)
        shift = np.array([[1, 0, 15 * np.sin(number / 20)], [0, 1, 5 * np.sin(number / 33)]], np.float32)
        moved = cv2.warpAffine(tissue, shift, (width, height), borderMode=cv2.BORDER_REFLECT)
        # The same grain at another place each time: new noise would cost more than all the rest.
        top, left = rng.integers(0, 32, 2)
        noise = grain[top : top + height, left : left + width] * (moved > 8)
        yield np.asarray(np.clip(moved + noise, 0, 255), dtype=np.uint8)
