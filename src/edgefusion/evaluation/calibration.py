"""Whether a predicted probability means what it says: of the pixels called 70 % nerve, are 70 % nerve?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from edgefusion.evaluation.chart_style import INK, MUTED, PALETTE, WIDTH, chart, legend_below

BINS = 15
"""Equally wide bins of probability, the usual number (Guo et al. 2017)."""

BAND = 0.04
"""Half the width of the border band as a share of the frame's height: 7 px of 185."""

REGIONS = {"all pixels": "all pixels", "border band": f"within {BAND:.0%} of the frame's height of a border"}
"""Where calibration is measured. Nearly all pixels of a frame are surely background and make any network look
calibrated; what matters for the outline is the band around the true and the predicted border."""


class Reliability:
    """Counts pixels by predicted probability, frame after frame."""

    def __init__(self) -> None:
        self._pixels, self._predicted, self._true = (np.zeros(BINS) for _ in range(3))

    def add(self, probability: NDArray[Any], truth: NDArray[np.bool_], times: NDArray[Any] | None = None) -> None:
        """Count some pixels.

        Args:
            probability: N predicted probabilities in [0, 1].
            truth: N, whether the label truly is there.
            times: N, how often to count each; by default once.
        """
        place = np.minimum((probability * BINS).astype(np.intp), BINS - 1)
        times = np.ones(len(probability)) if times is None else times
        self._pixels += np.bincount(place, times, minlength=BINS)
        self._predicted += np.bincount(place, probability * times, minlength=BINS)
        self._true += np.bincount(place, truth * times, minlength=BINS)

    def summary(self) -> dict[str, Any]:
        """What was counted.

        Returns:
            ``ece``, the expected calibration error: the mean over pixels of the distance between their bin's mean
            probability and its share of true pixels (Naeini et al. 2015), in [0, 1]; ``bias``, mean probability minus
            share of true pixels, above 0 where the network claims too much; ``pixels``; and ``bins``, of every bin
            that is not empty the ``pixels``, the mean ``probability`` and the ``share`` of true pixels. Without pixels
            ``ece`` and ``bias`` are NaN.
        """
        total = self._pixels.sum()
        gaps = self._predicted - self._true
        used = self._pixels > 0
        pixels = self._pixels[used]
        columns = (pixels, self._predicted[used] / pixels, self._true[used] / pixels)
        return {
            "ece": float(np.abs(gaps).sum() / total) if total else float("nan"),
            "bias": float(gaps.sum() / total) if total else float("nan"),
            "pixels": int(total),
            "bins": [
                {"pixels": int(n), "probability": round(float(p), 4), "share": round(float(s), 4)}
                for n, p, s in zip(*columns, strict=True)
            ],
        }


def border_band(*masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels near the border of any of the masks, inside or outside it, see ``BAND``.

    Args:
        *masks: H×W each.

    Returns:
        H×W; nothing where all masks are empty.
    """
    reach = max(1, round(BAND * masks[0].shape[0]))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    near = np.zeros(masks[0].shape, dtype=bool)
    for mask in masks:
        pixels = mask.astype(np.uint8)
        near |= cv2.dilate(pixels, disc) != cv2.erode(pixels, disc)
    return near


@chart
def draw_reliability(calibration: Mapping[str, Mapping[str, Any]]) -> Figure:
    """The share of true pixels against the mean predicted probability; on the diagonal, a probability is what it says.

    Args:
        calibration: Of every label, ``before`` and ``after`` temperature scaling, the ``Reliability.summary`` of each
            of ``REGIONS``.
    """
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    panels = figure.subplots(1, len(REGIONS), sharey=True)
    for number, (label, stages) in enumerate(calibration.items()):
        colour = PALETTE[number % len(PALETTE)]
        for stage, style in (("before", "o:"), ("after", "o-")):
            for axes, region in zip(panels, REGIONS, strict=True):
                bins = stages[stage][region]["bins"]
                said, true = ([place[key] for place in bins] for key in ("probability", "share"))
                axes.plot(said, true, style, color=colour, markersize=4, label=f"{label}, {stage}")
    for axes, region in zip(panels, REGIONS, strict=True):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="predicted probability")
        axes.set_title(region, fontsize=10, color=INK)
    panels[0].set_ylabel("share of pixels that are true")
    legend_below(figure, panels[0])
    return figure
