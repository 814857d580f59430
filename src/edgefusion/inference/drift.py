"""How far a frame is from the frames that a network was trained on, told from the picture alone.

A few dozen statistics stand for the picture at the network's size: how grey it is, how grey at which depth, how coarse
its texture and in which direction. Their Mahalanobis distance from the training frames (Mahalanobis 1936), over the
distance that 99 of 100 frames of unseen patients keep, is the frame's drift. What the network says is not asked: the
drift costs a fifth of a millisecond and is the same whatever runs the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from edgefusion.config import ChannelRecipe
from edgefusion.errors import BundleError
from edgefusion.inference.picture_statistics import STATISTICS, statistics

COMPANION = "drift"
"""Name of the statistics among a bundle's companions."""

KEPT = 0.99
"""Share of the frames of unseen patients that the limit lets pass."""

_VERSION = 1
"""Of the statistics; a bundle with another one is refused. Raise it whenever their values change."""


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
