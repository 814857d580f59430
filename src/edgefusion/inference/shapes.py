"""A shape prior: what of a probability map the training masks could have made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Shapes:
    """Mean and principal components of one label's masks."""

    mean: NDArray[np.float32]
    """height×width in [0, 1]."""
    components: NDArray[np.float32]
    """k×height×width, orthonormal, that of the greatest variance first."""

    def first(self, count: int) -> Shapes:
        """The same with the first ``count`` components only."""
        return Shapes(self.mean, self.components[:count])


def fit_shapes(masks: Iterable[NDArray[np.bool_]], size: tuple[int, int], count: int) -> Shapes:
    """Principal components of masks (Turk and Pentland 1991, "Eigenfaces for recognition").

    Args:
        masks: H×W each, of training frames only; may differ in size.
        size: Height and width of the network's maps, to which the masks are brought.
        count: How many components; fewer are kept if the masks span fewer.
    """
    planes = [cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA) for mask in masks]
    rows = np.stack(planes).reshape(len(planes), -1)
    mean = rows.mean(0)
    _, strengths, components = np.linalg.svd(rows - mean, full_matrices=False)
    spanned = int(np.count_nonzero(strengths > strengths.max(initial=0) * 1e-5))
    kept = components[: min(count, spanned)]
    return Shapes(mean.reshape(size), kept.reshape(-1, *size).astype(np.float32))


def project(probability: NDArray[np.float32], shapes: Shapes) -> NDArray[np.float32]:
    """The map nearest to a probability map among the mean plus combinations of the components.

    Args:
        probability: height×width in [0, 1].
        shapes: The subspace.

    Returns:
        height×width, clipped to [0, 1].
    """
    basis = shapes.components.reshape(len(shapes.components), shapes.mean.size)
    weights = basis @ (probability - shapes.mean).ravel()
    nearest = shapes.mean + (weights @ basis).reshape(shapes.mean.shape)
    return np.asarray(nearest.clip(0, 1))
