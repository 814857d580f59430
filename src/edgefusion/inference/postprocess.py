"""Clean a predicted mask: regions that are too small, all but the largest, holes.

Regions are 8-connected and holes 4-connected, so that a diagonal line of pixels divides what it seems to divide.
What each step is worth on real frames stands in ``docs/results/postprocessing.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefusion.config import PostProcessing


def clean(
    mask: NDArray[np.uint8], labels: Sequence[str], steps: Mapping[str, PostProcessing], frame_area: int
) -> NDArray[np.uint8]:
    """Apply each label's steps: small regions go, then all but the largest, and then holes are filled.

    Filling comes last and takes background only, so no pixel passes from one label to another, and cleaning what is
    clean changes nothing.

    Args:
        mask: H×W, 0 is background and k is ``labels[k - 1]``.
        labels: Names of the labels.
        steps: What to do, by name of the label; nothing is done to a label that is not there.
        frame_area: Pixels of the frame, or of the part of it that was looked at: what a share of the frame is of.

    Returns:
        H×W, a new array.
    """
    cleaned = mask.copy()
    there = np.bincount(mask.ravel(), minlength=len(labels) + 1)
    chosen = [(value, steps[label]) for value, label in enumerate(labels, 1) if label in steps and there[value]]
    # Regions cover a small part of a frame, and what is around them costs time as well.
    windows = {value: _window(mask == value) for value, _ in chosen}
    for value, step in chosen:
        part = cleaned[windows[value]]
        kept = found = part == value
        if step.smallest_area:
            kept = without_small_regions(kept, step.smallest_area * frame_area)
        if step.largest_region:
            kept = largest_region(kept)
        part[found & ~kept] = 0
    for value, step in chosen:
        if step.fill_holes:
            part = cleaned[windows[value]]
            part[without_holes(part == value) & (part == 0)] = value
    return cleaned


def without_small_regions(mask: NDArray[np.bool_], smallest: float) -> NDArray[np.bool_]:
    """Remove the regions of a mask that are smaller than a nerve can be.

    An area below which a mask is emptied was common in Kaggle's nerve segmentation challenge, such as in E. Tyantov's
    ``ultrasound-nerve-segmentation`` (2016), whose presence score grows with the area.

    Args:
        mask: H×W.
        smallest: Pixels that a region must have to stay.

    Returns:
        H×W, a part of ``mask``.
    """
    regions, areas = _regions(mask, 8)
    kept = mask.copy()
    for small in 1 + np.flatnonzero(areas[1:] < smallest):
        kept[regions == small] = False
    return kept


def largest_region(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the largest region of a mask; of equal ones, that which begins furthest up.

    Isensee et al. (2021, "nnU-Net", Nature Methods 18) decide so too, by whether it helps in cross-validation.

    Args:
        mask: H×W.

    Returns:
        H×W, a part of ``mask``, empty where that is empty.
    """
    regions, areas = _regions(mask, 8)
    if len(areas) <= 2:
        return mask
    return np.asarray(regions == 1 + areas[1:].argmax())


def without_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill what a mask encloses (Soille 2003, "Morphological Image Analysis", section 6.3.7).

    Gives what ``scipy.ndimage.binary_fill_holes`` gives, in a fraction of the time.

    Args:
        mask: H×W.

    Returns:
        H×W; contains ``mask``.
    """
    # With a rim of background, all that is not enclosed is one region.
    outside = np.pad(~mask, 1, constant_values=True)
    regions, _ = _regions(outside, 4)
    return np.asarray(regions[1:-1, 1:-1] != regions[0, 0])


def _regions(mask: NDArray[np.bool_], connectivity: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Number of the region of every pixel, 0 outside, and the area of each, that of the outside first."""
    _, regions, facts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=connectivity)
    return np.asarray(regions), np.asarray(facts[:, cv2.CC_STAT_AREA])


def _window(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns around all that is in a mask."""
    column, row, width, height = cv2.boundingRect(mask.view(np.uint8))
    return slice(row, row + height), slice(column, column + width)
