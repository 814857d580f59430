"""How far a frame is from the frames that a network was trained on, told from the picture alone.

A few dozen statistics stand for the picture at the network's size: how grey it is, how grey at which depth, how coarse
its texture and in which direction. Their Mahalanobis distance from the training frames (Mahalanobis 1936), over the
distance that 99 of 100 frames of unseen patients keep, is the frame's drift. What the network says is not asked: the
drift costs a fraction of a millisecond and is the same whatever runs the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log, sqrt
from typing import Any, Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from edgefusion.config import ChannelRecipe
from edgefusion.errors import BundleError

COMPANION = "drift"
"""Name of the statistics among a bundle's companions."""

KEPT = 0.99
"""Share of the frames of unseen patients that the limit lets pass."""

_VERSION = 1
"""Of the statistics below; a bundle with another one is refused. Raise it whenever their values change."""

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_BLACK, _WHITE = 2, 253
_STRIPS, _COLUMNS = 8, 3
"""Equal parts from the transducer down, and across, of which the mean grey level is taken."""

_SCALES = 4
"""Of texture: pixels, pairs, fours and eights of them."""

_BLOCK = 8
"""Side of the squares in which contrast is local, in pixels of the network."""

_GREY_LEVEL = 1 / 255
_DARK = 0.02
_RARE = 0.01
"""Added before logarithms: without contrast, black, or without a single black pixel is far, but not infinitely."""

STATISTICS = len(_QUANTILES) + 4 + _STRIPS + _COLUMNS + 4 * _SCALES + 4
"""How many there are."""


def statistics(plane: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """What stands for a picture.

    In order: quantiles of the grey level, its mean, the logarithm of its standard deviation and of the shares of black
    and of white pixels; mean grey level of strips from the top down and from left to right; at each scale of a Haar
    wavelet transform (Mallat 1989) the logarithms of the root mean square of its vertical, lateral and diagonal
    details, which are the spectrum's slope and direction and the size of speckle, and of how sparse the vertical ones
    are; at last mean and standard deviation, over small squares, of the logarithm of the local standard deviation and
    of that over the local mean, the speckle contrast.

    Args:
        plane: h×w in [0, 1], both sides multiples of 16.

    Returns:
        ``STATISTICS`` values.
    """
    x = np.ascontiguousarray(plane, dtype=np.float32)
    grey = (x * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    below = np.cumsum(cv2.calcHist([grey], [0], None, [256], [0, 256]), dtype=np.float64) / x.size
    mean, deviation = (float(value[0, 0]) for value in cv2.meanStdDev(x))
    small = (x.shape[1] // _BLOCK, x.shape[0] // _BLOCK)
    local = cv2.resize(x, small, interpolation=cv2.INTER_AREA)
    variance = cv2.resize(x * x, small, interpolation=cv2.INTER_AREA) - local * local
    contrast = np.log(np.sqrt(np.maximum(variance, 0)) + _GREY_LEVEL)
    relative = contrast - np.log(local + _DARK)
    return np.array(
        [
            *(np.searchsorted(below, _QUANTILES) / 255),
            mean,
            log(deviation + _GREY_LEVEL),
            log(below[_BLACK] + _RARE),
            log(1 - below[_WHITE - 1] + _RARE),
            *x.mean(1).reshape(_STRIPS, -1).mean(1),
            *cv2.resize(x.mean(0)[None], (_COLUMNS, 1), interpolation=cv2.INTER_AREA).ravel(),
            *_texture(x),
            contrast.mean(),
            contrast.std(),
            relative.mean(),
            relative.std(),
        ],
        dtype=np.float64,
    )


def _texture(level: NDArray[np.float32]) -> list[float]:
    values: list[float] = []
    for _ in range(_SCALES):
        a, b, c, d = level[0::2, 0::2], level[0::2, 1::2], level[1::2, 0::2], level[1::2, 1::2]
        upper, lower, left, right = a + b, c + d, a - b, c - d
        vertical, lateral, diagonal = upper - lower, left + right, left - right
        # Half of these sums over four pixels is the orthonormal transform.
        strengths = [0.5 * sqrt(np.vdot(band, band) / band.size) for band in (vertical, lateral, diagonal)]
        mean = 0.5 * cv2.norm(vertical, cv2.NORM_L1) / vertical.size
        values += [log(strength + _GREY_LEVEL) for strength in strengths]
        values.append(log((mean + _GREY_LEVEL) / (strengths[0] + _GREY_LEVEL)))
        level = (upper + lower) * np.float32(0.25)
    return values


def plane_of(stack: NDArray[np.floating[Any]], recipe: ChannelRecipe) -> NDArray[np.floating[Any]]:
    """The channel that the statistics are taken of: the raw one, or the first where the network does not see that.

    Args:
        stack: C×h×w, as ``channels.recipe`` makes it for the recipe.
        recipe: The bundle's.
    """
    return np.asarray(stack[recipe.channels.index("raw") if "raw" in recipe.channels else 0])


@dataclass(frozen=True)
class Drift:
    """Where the training frames lie, and how far from them the frames of unseen patients are."""

    mean: NDArray[np.float64]
    """``STATISTICS`` values: the training frames' mean."""
    whitening: NDArray[np.float64]
    """``STATISTICS`` × ``STATISTICS``: makes of the difference from the mean one whose length is the distance."""
    limit: float
    """The distance that ``KEPT`` of the frames of unseen patients keep."""

    def __call__(self, plane: NDArray[np.floating[Any]]) -> float:
        """The drift of a picture, from 0; above 1 it is unlike what was trained on.

        Args:
            plane: h×w in [0, 1], of ``plane_of``.
        """
        return float(self.distances(statistics(plane)[None])[0] / self.limit)

    def distances(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The distances of N × ``STATISTICS`` from the training frames."""
        return np.asarray(np.linalg.norm((rows - self.mean) @ self.whitening.T, axis=1))

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a bundle carries."""
        return {
            "version": torch.tensor(_VERSION),
            "mean": torch.tensor(self.mean),
            "whitening": torch.tensor(self.whitening),
            "limit": torch.tensor(self.limit, dtype=torch.float64),
        }

    @classmethod
    def of(cls, companions: Mapping[str, Mapping[str, torch.Tensor]]) -> Self | None:
        """The statistics among a bundle's companions, None where it carries none.

        Raises:
            BundleError: If they are not what this program can use.
        """
        tensors = companions.get(COMPANION)
        if tensors is None:
            return None
        remedy = "Fit the bundle's drift again: python -m edgefusion.evaluation.fit_drift."
        try:
            if int(tensors["version"]) != _VERSION:
                raise BundleError("The bundle's drift statistics are from another version of EdgeFusion.", remedy)
            drift = cls(tensors["mean"].numpy(), tensors["whitening"].numpy(), float(tensors["limit"]))
        except (KeyError, RuntimeError, ValueError) as error:
            raise BundleError(f"The bundle's drift statistics lack a part ({error}).", remedy) from error
        shapes = (drift.mean.shape, drift.whitening.shape)
        finite = np.isfinite(drift.mean).all() and np.isfinite(drift.whitening).all() and np.isfinite(drift.limit)
        if shapes != ((STATISTICS,), (STATISTICS, STATISTICS)) or not finite or drift.limit <= 0:
            raise BundleError("The bundle's drift statistics are damaged.", remedy)
        return drift
