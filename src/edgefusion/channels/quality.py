"""How good a despeckled image or an edge map is, with or without a known truth.

Images are H×W floating point in [0, 1] grey levels, regions and edges are H×W bool. A figure whose denominator is 0
is NaN: a region without any variation has no finite number of looks, for instance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefusion.errors import UsageError

Image = NDArray[np.floating[Any]]
Region = NDArray[np.bool_]

_LEVELS = 256


def enl(image: Image, region: Region) -> float:
    """Equivalent number of looks of a homogeneous region: mean² / variance. More is smoother."""
    values = _inside(image, region)
    return _ratio(values.mean() ** 2, values.var())


def ssi(before: Image, after: Image, region: Region | None = None) -> float:
    """Speckle suppression index, (sd/mean after) / (sd/mean before). Below 1 speckle fell.

    Source: Sheng, Xia, IGARSS 1996.
    """
    old, new = _inside(before, region), _inside(after, region)
    return _ratio(_ratio(new.std(), new.mean()), _ratio(old.std(), old.mean()))


def smpi(before: Image, after: Image, region: Region | None = None) -> float:
    """Speckle suppression and mean preservation index, (1 + |mean difference|) sd after / sd before. Less is better.

    Source: Shamsoddini, Trinder, ISPRS Archives 38(7B), 2010, with 1 in place of its ratio of means, which makes it
    defined for a dark region.
    """
    old, new = _inside(before, region), _inside(after, region)
    return _ratio((1 + abs(old.mean() - new.mean())) * new.std(), old.std())


def cnr(image: Image, inside: Region, outside: Region) -> float:
    """Contrast-to-noise ratio of two regions, |m1 - m2| / sqrt(s1² + s2²)."""
    a, b = _inside(image, inside), _inside(image, outside)
    return _ratio(abs(a.mean() - b.mean()), np.sqrt(a.var() + b.var()))


def gcnr(image: Image, inside: Region, outside: Region) -> float:
    """Generalised contrast-to-noise ratio: 1 - overlap of the two regions' histograms (256 bins), in [0, 1].

    No change of contrast that keeps the order of grey levels can raise it. Source: Rodriguez-Molares et al., IEEE
    Trans. Ultrasonics 67(4), 2020.
    """
    a, b = _inside(image, inside), _inside(image, outside)
    edges = np.linspace(min(a.min(), b.min()), max(a.max(), b.max()) + 1e-12, _LEVELS + 1)
    share_a, share_b = (np.histogram(values, edges)[0] / values.size for values in (a, b))
    return float(1 - np.minimum(share_a, share_b).sum())


def epi(image: Image, clean: Image) -> float:
    """Edge preservation index: correlation of the Laplacians of the image and of the clean image, at most 1.

    Source: Sattar et al., IEEE Trans. Image Processing 6(6), 1997.
    """
    _same_size(image, clean)
    a, b = (cv2.Laplacian(np.asarray(x, dtype=np.float64), cv2.CV_64F, ksize=3) for x in (image, clean))
    a, b = a - a.mean(), b - b.mean()
    return _ratio((a * b).sum(), np.sqrt((a * a).sum() * (b * b).sum()))


def affine_fit(image: Image, clean: Image) -> NDArray[np.float64]:
    """``gain * image + offset`` nearest to ``clean`` in least squares.

    Filters shift and stretch grey levels, which no network minds; fit before PSNR and SSIM to judge the rest.
    """
    _same_size(image, clean)
    x, y = np.asarray(image, dtype=np.float64), np.asarray(clean, dtype=np.float64)
    spread = x - x.mean()
    power = (spread * spread).sum()
    gain = (spread * y).sum() / power if power > 0 else 0.0
    return np.asarray(gain * spread + y.mean(), dtype=np.float64)


def psnr(image: Image, clean: Image) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 1; infinite for equal images."""
    _same_size(image, clean)
    error = np.mean((np.asarray(image, dtype=np.float64) - clean) ** 2)
    return float(-10 * np.log10(error)) if error > 0 else float("inf")


def ssim(image: Image, clean: Image) -> float:
    """Mean structural similarity, at most 1: Gaussian window of 1.5 px, K1 = 0.01, K2 = 0.03, range 1.

    Source: Wang et al., IEEE Trans. Image Processing 13(4), 2004.
    """
    _same_size(image, clean)
    x, y = np.asarray(image, dtype=np.float64), np.asarray(clean, dtype=np.float64)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(cv2.GaussianBlur(values, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT))

    mx, my = mean(x), mean(y)
    vx, vy, covariance = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mx * my + c1) * (2 * covariance + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return float(similarity.mean())


def homogeneous_region(image: Image, side: int = 32) -> Region:
    """The square with the least coefficient of variation among those at least half as bright as the frame's median.

    Args:
        image: H×W in [0, 1].
        side: Side of the square, px; smaller frames give a smaller one.

    Returns:
        H×W bool, True in the square.
    """
    values = np.asarray(image, dtype=np.float64)
    size = (min(side, values.shape[1]), min(side, values.shape[0]))
    anchor = (0, 0)
    mean = cv2.boxFilter(values, -1, size, anchor=anchor)[
        : values.shape[0] - size[1] + 1, : values.shape[1] - size[0] + 1
    ]
    square = cv2.boxFilter(values * values, -1, size, anchor=anchor)[: mean.shape[0], : mean.shape[1]]
    variation = np.maximum(square - mean * mean, 0) / np.maximum(mean * mean, 1e-12)
    variation[mean < min(float(np.median(values)) / 2, float(mean.max()))] = np.inf
    row, column = np.unravel_index(np.argmin(variation), variation.shape)
    region = np.zeros(values.shape, dtype=bool)
    region[row : row + size[1], column : column + size[0]] = True
    return region


def describe(before: Image, after: Image) -> dict[str, float]:
    """Figures of a despeckled frame that need no truth, over ``homogeneous_region(before)``.

    Args:
        before: The frame, H×W in [0, 1].
        after: The same frame, despeckled.

    Returns:
        ``enl_before``, ``enl_after``, ``ssi`` and ``smpi``.
    """
    _same_size(before, after)
    region = homogeneous_region(before)
    return {
        "enl_before": enl(before, region),
        "enl_after": enl(after, region),
        "ssi": ssi(before, after, region),
        "smpi": smpi(before, after, region),
    }


@dataclass(frozen=True)
class EdgeScores:
    """How well edge maps find the true edges of a set of frames."""

    ods_f: float
    """Best F-measure that one threshold for all frames reaches."""
    threshold: float
    """That threshold."""
    average_precision: float
    """Area under the curve of precision over recall."""
    wall_recall: float
    """Share of the wall's pixels found at ``threshold``; NaN without a wall."""


def edge_scores(
    maps: Sequence[Image],
    truths: Sequence[Region],
    walls: Sequence[Region] | None = None,
    tolerance: float = 4.0,
) -> EdgeScores:
    """Score edge maps against true edges.

    A map is thinned to the pixels that no neighbour in their row, or none in their column, exceeds. At a threshold,
    precision is the share of thinned pixels within ``tolerance`` of a true edge, recall the share of true edge pixels
    within ``tolerance`` of a thinned pixel, both pooled over frames. The protocol is that of Martin, Fowlkes, Malik,
    IEEE Trans. Pattern Analysis 26(5), 2004, without its one-to-one assignment.

    Args:
        maps: Edge maps, each H×W in [0, 1].
        truths: True edges of the same frames, each H×W.
        walls: Edges of one kind, such as the nerve's outline, whose recall is given apart.
        tolerance: Distance in px that still counts as found.

    Returns:
        The scores, over 255 thresholds.

    Raises:
        UsageError: If the sequences, or a map and its truth, differ in size.
    """
    walls = [np.zeros_like(truth) for truth in truths] if walls is None else walls
    if not len(maps) == len(truths) == len(walls):
        raise UsageError(f"There are {len(maps)} edge maps for {len(truths)} truths and {len(walls)} walls.")
    hits, detections, found, wanted, wall_found, wall_wanted = (np.zeros(_LEVELS) for _ in range(6))
    for edges, truth, wall in zip(maps, truths, walls, strict=True):
        _same_size(edges, truth)
        levels = _thin_levels(edges)
        near = _distance(truth) <= tolerance
        best = _largest_within(levels, tolerance)
        detections += _count_levels(levels[levels > 0])
        hits += _count_levels(levels[(levels > 0) & near])
        found, wanted = found + _count_levels(best[truth]), wanted + truth.sum()
        wall_found, wall_wanted = wall_found + _count_levels(best[wall]), wall_wanted + wall.sum()
    # Level 0 is no detection; from the highest threshold to the lowest, recall rises.
    precision = np.divide(hits, detections, out=np.ones(_LEVELS), where=detections > 0)[:0:-1]
    recall = np.divide(found, wanted, out=np.zeros(_LEVELS), where=wanted > 0)[:0:-1]
    f = np.divide(2 * precision * recall, precision + recall, out=np.zeros_like(recall), where=recall > 0)
    best_index = int(np.argmax(f))
    level = _LEVELS - 1 - best_index
    return EdgeScores(
        ods_f=float(f[best_index]),
        threshold=level / (_LEVELS - 1),
        average_precision=float(np.sum(np.diff(recall, prepend=0) * precision)),
        wall_recall=_ratio(wall_found[level], wall_wanted[level]),
    )


def outline(mask: NDArray[Any]) -> Region:
    """The pixels of a mask that touch the background, H×W bool; the frame's border is no background."""
    filled = (np.asarray(mask) > 0).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return np.asarray((filled > 0) & (cv2.erode(filled, kernel, borderValue=1) == 0))


def _thin_levels(edges: Image) -> NDArray[np.uint8]:
    values = np.asarray(edges, dtype=np.float32)
    across = cv2.dilate(values, np.ones((1, 3), dtype=np.uint8))
    down = cv2.dilate(values, np.ones((3, 1), dtype=np.uint8))
    ridge = (values >= across) | (values >= down)
    return np.asarray(np.where(ridge, np.round(values * (_LEVELS - 1)), 0), dtype=np.uint8)


def _distance(edges: Region) -> NDArray[np.float32]:
    if not edges.any():
        return np.full(edges.shape, np.inf, dtype=np.float32)
    return np.asarray(cv2.distanceTransform((~edges).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE))


def _largest_within(levels: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    reach = int(radius)
    rows, columns = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disk = (rows**2 + columns**2 <= radius**2).astype(np.uint8)
    return np.asarray(cv2.dilate(levels, disk))


def _count_levels(levels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How many values are at or above each level."""
    counts = np.bincount(levels, minlength=_LEVELS)
    return np.asarray(counts[::-1].cumsum()[::-1], dtype=np.float64)


def _inside(image: Image, region: Region | None) -> NDArray[np.float64]:
    values = np.asarray(image, dtype=np.float64)
    if region is None:
        return values.ravel()
    _same_size(image, region)
    if not region.any():
        raise UsageError("The region for a quality figure is empty.")
    return np.asarray(values[region])


def _same_size(a: NDArray[Any], b: NDArray[Any]) -> None:
    if a.shape != b.shape:
        raise UsageError(f"Two images must have one size, but these have {a.shape} and {b.shape}.")


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below > 0 else float("nan")
