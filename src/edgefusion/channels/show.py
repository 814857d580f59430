"""The channels of one image as pictures, with the figures that judge a despeckled image without truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefusion.channels.diffusion import METHODS
from edgefusion.channels.quality import describe
from edgefusion.channels.recipe import build_stack
from edgefusion.config import ChannelRecipe
from edgefusion.data.readers import read_frame
from edgefusion.files import atomic_path

_CAPTION = 28


def show_channels(image: Path, output: Path, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Write each channel as a PNG, and ``channels.png`` with all of them side by side.

    Args:
        image: An image file.
        output: Folder for the pictures.
        names: Channels, see ``ChannelRecipe.channels``.

    Returns:
        For each despeckled channel, the figures of ``channels.quality.describe``.

    Raises:
        DataError: If the image cannot be read.
        UsageError: If there is no such channel.
    """
    frame = read_frame(image)
    recipe = ChannelRecipe(channels=("raw", *names), height=frame.shape[0], width=frame.shape[1])
    raw, *stack = build_stack(frame, recipe)
    pictures = [np.rint(255 * channel).astype(np.uint8) for channel in stack]
    for name, picture in zip(names, pictures, strict=True):
        _write(output / f"{name}.png", picture)
    _write(output / "channels.png", np.hstack([_captioned(*pair) for pair in zip(names, pictures, strict=True)]))
    return {name: describe(raw, channel) for name, channel in zip(names, stack, strict=True) if name in METHODS}


def _captioned(name: str, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    bar = np.zeros((_CAPTION, picture.shape[1]), np.uint8)
    cv2.putText(bar, name, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, 255, 1, cv2.LINE_AA)
    return np.vstack([bar, picture])


def _write(path: Path, picture: NDArray[np.uint8]) -> None:
    with atomic_path(path) as temporary:
        cv2.imwrite(str(temporary), picture)
