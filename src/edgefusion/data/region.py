"""The ultrasound image on a scanner's screen: text, rulers and frozen panels stand still, tissue does not."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefusion.data.clip import Region

FRAMES = 64
"""Frames of a clip that are looked at."""

_CAP = 6.0
"""Change of a pixel from one frame to the next that counts fully, grey levels of 255. A clock changes by much, but
seldom; tissue changes by little, but always."""

_FLOOR = 0.25
"""Mean change, so capped, below which nothing moves: a codec leaves less on a still background."""

_SHARE = 0.3
"""A pixel of the image changes at least by this share of what the liveliest tenth of the frame does: a frame grabber
adds noise to everything."""

_WHOLE = 0.93
"""A region at least as high and as wide as this share of the frame is the frame."""

_LEAST = 0.08
"""A region of less than this share of the frame's area is not the image."""


def find_region(frames: Iterable[NDArray[np.generic]]) -> Region | None:
    """Find the rectangle that moves.

    Args:
        frames: Of one clip, from its beginning, each H×W uint8 or uint16; the first ``FRAMES`` are looked at.

    Returns:
        The rectangle around the largest coherent area of pixels that change; all of the frame where hardly a border is
        left around it. None where nothing can be told: from a single frame, or where nothing of that size changes.
    """
    steps, changes = 0, np.zeros((1, 1), np.float32)
    before: NDArray[np.float32] | None = None
    for frame in islice(frames, FRAMES):
        now = np.asarray(frame, np.float32) * np.float32(255 / (65535 if frame.dtype == np.uint16 else 255))
        if before is None:
            changes = np.zeros(now.shape, np.float32)
        elif (now != before).any():
            # Recorders repeat frames; those say nothing.
            steps += 1
            changes += np.minimum(np.abs(now - before), _CAP)
        before = now
    if not steps:
        return None
    changes /= steps
    least = max(_FLOOR, _SHARE * float(np.quantile(changes, 0.9)))
    return _rectangle((changes >= least).astype(np.uint8))


def _rectangle(active: NDArray[np.uint8]) -> Region | None:
    height, width = active.shape
    # Between the grains of speckle, and in dark tissue, pixels rest: what lies within this distance is one area.
    reach = max(3, round(0.03 * min(height, width))) | 1
    closed = cv2.morphologyEx(active, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    # Then a clock, or an ECG, that touches the image by a thin bridge falls off.
    opened = cv2.morphologyEx(closed, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    count, _, boxes, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    if count < 2:
        return None
    left, top, wide, high = (int(value) for value in boxes[1 + int(boxes[1:, 4].argmax()), :4])
    if wide * high < _LEAST * width * height:
        return None
    if high >= _WHOLE * height and wide >= _WHOLE * width:
        return Region(0, 0, height, width)
    return Region(top, left, high, wide)
