"""Finding frames that show nearly the same picture, and labels of theirs that contradict each other.

A frame is described by a small thumbnail from which brightness and local contrast are removed, so that the correlation
of two thumbnails depends on where the structures lie, and not on the depth gain that all ultrasound frames share. Black
margins are cropped first, so the same picture exported in another size or with other margins correlates as well.

The thresholds were set on two sets of real frames. On the brachial plexus frames of the Kaggle competition the best
pair of different persons correlates at 0.56. Pictures of a second set that were exported twice, cropped differently,
correlate at 0.92 or more, views of one scene a moment apart at 0.75 to 0.9, and other scenes at 0.65 or less; so do
views between which the probe moved, which are not found. Where two frames of the competition that both have a mask
correlate above 0.95, their masks miss each other (Dice below 0.2) in 2 of 1000 pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

GROUP_SIMILARITY = 0.75
"""Frames at least this similar are put into one group, directly or through others."""

CONTRADICTION_SIMILARITY = 0.95
"""Frames at least this similar ought to carry the same label."""

_WORKING_SIDE = 64
_SIDE = 32
_DETAIL = 1.5
_SURROUNDINGS = 6.0
_BLOCK = 1024


@dataclass(frozen=True)
class Pairs:
    """Pairs of similar frames: positions ``first`` < ``second`` in the table, and their ``similarity`` up to 1."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    similarity: NDArray[np.float32]


def describe(image: NDArray[Any]) -> NDArray[np.float32]:
    """Describe a frame so that the scalar product of two descriptions is their similarity.

    Args:
        image: H×W uint8 or uint16.

    Returns:
        1024 float32 of unit length, or all zero for a picture without structure.
    """
    full = float(image.max()) or 1.0
    content = _without_margins(image, full)
    small = cv2.resize(content, (_WORKING_SIDE, _WORKING_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    small = _blurred(small * np.float32(255 / full), _DETAIL)
    detail = small - _blurred(small, _SURROUNDINGS)
    # The 2 grey levels keep noise in black regions from being amplified.
    detail /= np.sqrt(_blurred(detail * detail, _SURROUNDINGS)) + np.float32(2)
    thumbnail = cv2.resize(detail, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).ravel()
    thumbnail -= thumbnail.mean()
    length = float(np.linalg.norm(thumbnail))
    return np.asarray(thumbnail / length if length > 1e-3 else np.zeros_like(thumbnail), dtype=np.float32)


def _without_margins(image: NDArray[Any], full: float) -> NDArray[Any]:
    """The picture without rows and columns at its sides that are black but for a mark or two."""
    lit = image > full * (8 / 255)
    rows = np.flatnonzero(lit.mean(axis=1) > 0.05)
    columns = np.flatnonzero(lit.mean(axis=0) > 0.05)
    if rows.size < 8 or columns.size < 8:
        return image
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _blurred(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), dtype=np.float32)


def similar_pairs(descriptions: NDArray[np.float32], threshold: float = GROUP_SIMILARITY) -> Pairs:
    """All pairs of frames whose similarity reaches ``threshold``.

    Args:
        descriptions: N×1024, a row a frame, from ``describe``.
        threshold: Similarity from -1 to 1.
    """
    empty = np.empty(0, np.int64)
    firsts, seconds, similarities = [empty], [empty], [np.empty(0, np.float32)]
    # In square blocks, since a row of the table of similarities alone takes gigabytes for a million frames.
    for top in range(0, len(descriptions), _BLOCK):
        rows = descriptions[top : top + _BLOCK]
        for left in range(top, len(descriptions), _BLOCK):
            block = rows @ descriptions[left : left + _BLOCK].T
            first, second = np.nonzero(block >= threshold)
            once = first + top < second + left
            first, second = first[once], second[once]
            firsts.append(first + top)
            seconds.append(second + left)
            similarities.append(block[first, second])
    pairs = np.concatenate(firsts), np.concatenate(seconds), np.concatenate(similarities)
    order = np.lexsort((pairs[1], pairs[0]))
    return Pairs(pairs[0][order], pairs[1][order], pairs[2][order])


def group_leaders(frames: pd.DataFrame, pairs: Pairs) -> NDArray[np.int64]:
    """For every frame the position of the first frame of its group.

    Args:
        frames: A study's table; frames with the same ``sha256`` are in one group even if they have no structure.
        pairs: The similar pairs among them.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(frames)
    same_pixels, _ = pd.factorize(frames["sha256"])
    start = np.concatenate([pairs.first, np.arange(count)])
    end = np.concatenate([pairs.second, same_pixels + count])
    links = coo_array((np.ones(len(start), dtype=np.int8), (start, end)), shape=(2 * count, 2 * count))
    _, component = connected_components(links, directed=False)
    _, leader, group = np.unique(component[:count], return_index=True, return_inverse=True)
    return np.asarray(leader[group], dtype=np.int64)


def contradictions(frames: pd.DataFrame, pairs: Pairs) -> pd.DataFrame:
    """Frames that are said to have no foreground although a near-identical frame has some.

    Args:
        frames: A study's table.
        pairs: The similar pairs among its frames.

    Returns:
        One row for every such frame, with ``empty_frame``, ``masked_frame`` (the most similar one that has a mask) and
        ``similarity``.
    """
    area = frames["area_px"].to_numpy(dtype=np.float64, na_value=np.nan)
    near = pairs.similarity >= CONTRADICTION_SIMILARITY
    both_ways = [(pairs.first[near], pairs.second[near]), (pairs.second[near], pairs.first[near])]
    empty = np.concatenate([one for one, _ in both_ways])
    masked = np.concatenate([other for _, other in both_ways])
    similarity = np.tile(pairs.similarity[near], 2)
    wrong = (area[empty] == 0) & (area[masked] > 0)
    names = frames["frame_id"].to_numpy()
    found = pd.DataFrame(
        {"position": empty[wrong], "masked_frame": names[masked[wrong]], "similarity": similarity[wrong].round(4)}
    )
    best = found.sort_values("similarity", ascending=False, kind="stable").drop_duplicates("position")
    best = best.sort_values("position").reset_index(drop=True)
    best.insert(0, "empty_frame", names[best["position"]])
    return best.drop(columns="position")
