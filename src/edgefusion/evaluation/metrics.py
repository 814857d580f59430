"""How well one predicted mask matches one true mask: overlap, border, presence.

What happens where a formula divides by zero is decided here, once:

==============================  ====  =========  ======  ===========  ====================
case                            dice  precision  recall  boundary_f1  hd95, surface_distance
==============================  ====  =========  ======  ===========  ====================
both masks empty                1     1          1       1            NaN
truth empty, prediction not     0     0          NaN     0            NaN
prediction empty, truth not     0     NaN        0       0            NaN
==============================  ====  =========  ======  ===========  ====================

NaN means "there is nothing to measure" and is left out of means; how many frames that concerns is
reported beside every such mean, so that a model cannot look precise by staying silent unnoticed.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from edgefusion.errors import DataError

BOUNDARY_TOLERANCE_PX = 2.0
"""How far, in pixels, a border may lie from the true one and still count as found."""

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def frame_measures(
    prediction: NDArray[Any], truth: NDArray[Any], spacing: tuple[float, float] | None = None
) -> dict[str, float]:
    """Compare one predicted mask with the true one.

    A mask's border is the mask without its erosion by a 3×3 cross; pixels outside the frame count as
    background, so a mask cut off by the frame has a border there. Boundary F1 is the harmonic mean of
    the shares of each border within 2 px of the other (Csurka et al. 2013). HD95 is the larger of the
    two directed 95th percentiles of border distances, the surface distance the mean over both borders
    together; both agree with MONAI's.

    Args:
        prediction: H×W, anything non-zero is foreground.
        truth: H×W, anything non-zero is foreground.
        spacing: Millimetres between rows and between columns; None measures distances in pixels.
            Give it only where every frame of a comparison has it, see ``distance_unit``.

    Returns:
        dice, precision, recall, tp, fp, fn (pixels), boundary_f1, hd95, surface_distance (px or mm),
        predicted_area, true_area (pixels). The module's docstring says what is NaN, and when.

    Raises:
        DataError: If the masks are not two-dimensional or differ in size.
    """
    prediction, truth = np.asarray(prediction) != 0, np.asarray(truth) != 0
    if prediction.ndim != 2 or prediction.shape != truth.shape:
        raise DataError(
            f"The prediction has shape {prediction.shape}, the true mask {truth.shape}.",
            "Score predictions at the frame's original size.",
        )
    tp = int(np.count_nonzero(prediction & truth))
    predicted_area, true_area = int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))
    both_empty = predicted_area == 0 and true_area == 0
    boundary_f1, hd95, surface_distance = _border_measures(prediction, truth, spacing)
    return {
        "dice": 1.0 if both_empty else 2 * tp / (predicted_area + true_area),
        "precision": 1.0 if both_empty else tp / predicted_area if predicted_area else math.nan,
        "recall": 1.0 if both_empty else tp / true_area if true_area else math.nan,
        "tp": tp,
        "fp": predicted_area - tp,
        "fn": true_area - tp,
        "boundary_f1": 1.0 if both_empty else boundary_f1,
        "hd95": hd95,
        "surface_distance": surface_distance,
        "predicted_area": predicted_area,
        "true_area": true_area,
    }


def presence_measures(presence: NDArray[Any], has_nerve: NDArray[Any], threshold: float = 0.5) -> dict[str, float]:
    """Judge the statement "there is a nerve in this frame" over many frames.

    Args:
        presence: N probabilities in [0, 1].
        has_nerve: N, whether the frame truly has one.
        threshold: At or above it, a frame is said to have one.

    Returns:
        sensitivity, specificity, auroc. NaN where frames of the class that it needs are missing.
    """
    from sklearn.metrics import roc_auc_score

    presence, has_nerve = np.asarray(presence, dtype=float), np.asarray(has_nerve, dtype=bool)
    said = presence >= threshold
    one_class = has_nerve.all() or not has_nerve.any()
    return {
        "sensitivity": float(said[has_nerve].mean()) if has_nerve.any() else math.nan,
        "specificity": float(1 - said[~has_nerve].mean()) if not has_nerve.all() else math.nan,
        "auroc": math.nan if one_class else float(roc_auc_score(has_nerve, presence)),
    }


def distance_unit(frames: pd.DataFrame) -> Literal["mm", "px"]:
    """The unit of a comparison's distances: mm where every frame has a spacing, otherwise px for all.

    Args:
        frames: A study's frames, with columns ``spacing_row_mm`` and ``spacing_col_mm``.
    """
    spacing = frames[["spacing_row_mm", "spacing_col_mm"]].apply(pd.to_numeric, errors="coerce")
    return "mm" if len(spacing) and bool(spacing.gt(0).all(axis=None)) else "px"


def _border_measures(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: tuple[float, float] | None
) -> tuple[float, float, float]:
    """Boundary F1, HD95 and mean surface distance; 0, NaN, NaN where a mask is empty."""
    predicted, true = _border(prediction), _border(truth)
    if not len(predicted) or not len(true):
        return 0.0, math.nan, math.nan
    to_true, to_predicted = _border_distances(predicted, true)
    near_true = np.mean(to_true <= BOUNDARY_TOLERANCE_PX)
    near_predicted = np.mean(to_predicted <= BOUNDARY_TOLERANCE_PX)
    total = near_true + near_predicted
    boundary_f1 = float(2 * near_true * near_predicted / total) if total else 0.0
    if spacing is not None:
        to_true, to_predicted = _border_distances(predicted * spacing, true * spacing)
    hd95 = max(np.percentile(to_true, 95), np.percentile(to_predicted, 95))
    return boundary_f1, float(hd95), float(np.concatenate([to_true, to_predicted]).mean())


def _border(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mask's border pixels as N×2 (row, column)."""
    pixels = mask.view(np.uint8)
    inside = cv2.erode(pixels, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    points = cv2.findNonZero(pixels - inside)
    if points is None:
        return np.empty((0, 2))
    return np.asarray(points.reshape(-1, 2)[:, ::-1], dtype=np.float64)


def _border_distances(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """From every point of each border the distance to the nearest point of the other."""
    # An unbalanced tree of a few hundred points is built several times faster and searched as fast.
    trees = [cKDTree(points, balanced_tree=False, compact_nodes=False) for points in (first, second)]
    return trees[1].query(first)[0], trees[0].query(second)[0]
