"""The report's pictures: every model on the same frames, and what a network sees of one frame."""

from __future__ import annotations

import dataclasses
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from edgefusion.config import ChannelRecipe
from edgefusion.evaluation.page import picture, picture_grid
from edgefusion.evaluation.pictures import (
    PREDICTION_COLOUR,
    TRUTH_COLOUR,
    ChosenFrame,
    channel_picture,
    overlay,
)

if TYPE_CHECKING:
    from edgefusion.data.study import Study
    from edgefusion.evaluation.chart_style import ModelStyle
    from edgefusion.evaluation.run import Run

_CHANNEL_TITLES = {
    "raw": "raw frame",
    "srad": "denoised by SRAD",
    "dpad": "denoised by DPAD",
    "osrad": "denoised by OSRAD",
    "perona-malik": "denoised by Perona and Malik's diffusion",
    "edges": "edges",
}


def overlay_gallery(
    run: Run, study: Study, label: str, chosen: list[ChosenFrame], styles: dict[str, ModelStyle]
) -> str:
    """All models on the chosen frames, a row a model, a column a frame.

    Raises:
        UsageError: If the study lacks one of the frames.
    """
    value = study.labels.index(label) + 1
    cells = [
        f'<div class="head">{frame.why}<small>patient {escape(frame.patient_id)}, frame {escape(frame.frame_id)}'
        "</small></div>"
        for frame in chosen
    ]
    images = {frame.frame_id: study.image(frame.frame_id) for frame in chosen}
    truths = {frame.frame_id: study.mask(frame.frame_id) == value for frame in chosen}
    for model, style in styles.items():
        for frame in chosen:
            labels = run.prediction(model, frame.fold, frame.frame_id)
            found = None if labels is None else labels == value
            caption = f"{style.title}: Dice {frame.dice[model]:.3f}" + ("" if found is not None else " (not kept)")
            png = overlay(images[frame.frame_id], np.asarray(truths[frame.frame_id]), found)
            cells.append(picture(png, caption, f"{frame.why} frame with the contours of {style.title}"))
    return _contour_key() + picture_grid(len(chosen), cells)


def overlay_numbers(label: str, chosen: list[ChosenFrame]) -> pd.DataFrame:
    """The numbers behind ``overlay_gallery``."""
    return pd.DataFrame(
        [
            {"label": label, "why": frame.why, "frame_id": frame.frame_id, "patient_id": frame.patient_id, **frame.dice}
            for frame in chosen
        ]
    )


def channels_of(image: NDArray[Any], recipe: ChannelRecipe) -> dict[str, NDArray[np.float32]]:
    """The channels of one frame by name.

    Filters that run on the whole frame are shown at its own size, before they are resized for the network.
    """
    from edgefusion.channels.recipe import build_stack

    if recipe.resolution == "frame":
        recipe = dataclasses.replace(recipe, height=image.shape[0], width=image.shape[1])
    return dict(zip(recipe.channels, build_stack(image, recipe), strict=True))


def channel_gallery(channels: dict[str, NDArray[np.float32]]) -> str:
    """The channels of one frame side by side."""
    titles = {name: _CHANNEL_TITLES.get(name, name) for name in channels}
    cells = [picture(channel_picture(channel), titles[name], titles[name]) for name, channel in channels.items()]
    return picture_grid(min(len(cells), 3), cells)


def channel_numbers(channels: dict[str, NDArray[np.float32]]) -> pd.DataFrame:
    """The numbers behind ``channel_gallery``: the grey levels of every channel."""
    return pd.DataFrame(
        [
            {"channel": name, "min": level.min(), "mean": level.mean(), "max": level.max(), "sd": level.std()}
            for name, level in channels.items()
        ]
    )


def _contour_key() -> str:
    keys = ((TRUTH_COLOUR, "truth"), (PREDICTION_COLOUR, "prediction"))
    return (
        '<p class="soft">'
        + " &ensp; ".join(f'<i class="key" style="border-color:rgb{colour}"></i>{name}' for colour, name in keys)
        + "</p>"
    )
