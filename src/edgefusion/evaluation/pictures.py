"""Pictures of frames for the report: masks as contours, and the channels that a network sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from edgefusion.arrays import as_unit

TRUTH_COLOUR = (48, 222, 96)
"""Red, green, blue of the true contour."""
PREDICTION_COLOUR = (255, 64, 255)
"""Red, green, blue of the predicted contour."""

_WIDTH = 520
"""Pixels: twice what a cell takes on screen, so that contours stay smooth on dense displays."""
_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class ChosenFrame:
    """A frame that the report shows, with every model's Dice on it."""

    why: str
    """Best, median or worst."""
    frame_id: str
    patient_id: str
    fold: str
    dice: dict[str, float]
    """Of every model in that fold."""


def choose_frames(frames: pd.DataFrame) -> list[ChosenFrame]:
    """Pick the frames with the best, the median and the worst Dice averaged over all models.

    Averaging over the models favours none of them. Only frames with a mask are considered; ties go to
    the first frame by name. A frame that was judged in several folds (seeds) is ranked by the mean of all
    and comes with the fold and the Dice of the first.

    Args:
        frames: Rows of one label; all models share their frames.
    """
    masked = frames[frames["true_area"] > 0]
    mean = masked.groupby("frame_id")["dice"].mean()
    ranked = mean.sort_values(kind="stable", ascending=False).index
    if ranked.empty:
        return []
    places = {"Best": 0, "Median": len(ranked) // 2, "Worst": int(np.argmax(mean.loc[ranked] == mean.min()))}
    chosen = []
    for why, place in places.items():
        rows = masked[masked["frame_id"] == ranked[place]]
        first = rows.iloc[0]
        rows = rows[rows["fold"] == first["fold"]]
        dice = {str(model): float(value) for model, value in zip(rows["model"], rows["dice"], strict=True)}
        chosen.append(ChosenFrame(why, str(first["frame_id"]), str(first["patient_id"]), str(first["fold"]), dice))
    return chosen


def overlay(image: NDArray[Any], truth: NDArray[np.bool_], prediction: NDArray[np.bool_] | None) -> bytes:
    """Draw the true contour in green and the predicted one in magenta onto a frame.

    Args:
        image: H×W grey, uint8, uint16 or float in [0, 1].
        truth: H×W.
        prediction: H×W, or None to show the truth alone.

    Returns:
        PNG, 520 pixels wide.
    """
    grey = np.round(as_unit(image) * 255).astype(np.uint8)
    scale = _WIDTH / grey.shape[1]
    resized = _resized(grey)
    canvas = cv2.cvtColor(resized, cv2.COLOR_GRAY2RGB)
    _draw_contours(canvas, truth, TRUTH_COLOUR, scale)
    if prediction is not None:
        _draw_contours(canvas, prediction, PREDICTION_COLOUR, scale)
    return _png(cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR))


def channel_picture(channel: NDArray[Any]) -> bytes:
    """Show one channel with its grey levels stretched from its minimum to its 99.8th percentile.

    Args:
        channel: H×W in [0, 1].

    Returns:
        PNG, 520 pixels wide.
    """
    low, high = float(channel.min()), float(np.percentile(channel, 99.8))
    stretched = np.clip((channel - low) / max(high - low, 1e-6), 0, 1)
    return _png(_resized(np.round(stretched * 255).astype(np.uint8)))


def _draw_contours(
    canvas: NDArray[np.uint8], mask: NDArray[np.bool_], colour: tuple[int, int, int], scale: float
) -> None:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for contour in contours:
        # A pixel's centre lies half a pixel inside it, in both sizes.
        points = (contour.astype(np.float64) + 0.5) * scale - 0.5
        fixed = np.round(points * 2**_SUBPIXEL_BITS).astype(np.int32)
        cv2.polylines(canvas, [fixed], True, colour, 2, cv2.LINE_AA, _SUBPIXEL_BITS)


def _resized(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height = max(1, round(grey.shape[0] * _WIDTH / grey.shape[1]))
    interpolation = cv2.INTER_AREA if grey.shape[1] > _WIDTH else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(grey, (_WIDTH, height), interpolation=interpolation), dtype=np.uint8)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    return bytes(cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 6])[1].tobytes())
