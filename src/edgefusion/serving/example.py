"""The built-in example: a simulated neck, so that a first visitor sees something at once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgefusion.data.clip import Clip
from edgefusion.data.phantom.study import PhantomFrame, simulate_frame

FRAMES = 24

_SEED, _PATIENT = 3, 1
"""A patient whose nerve leaves the plane now and then."""


def example_clip() -> Clip:
    """A sweep over a simulated neck, each frame simulated when it is asked for first."""
    side = _shot(0).spacing_mm

    def read() -> Iterator[NDArray[np.uint8]]:
        return (_shot(frame).image for frame in range(FRAMES))

    return Clip(Path("/phantom"), read, FRAMES, rate=4.0, spacing=(side, side))


@cache
def _shot(frame: int) -> PhantomFrame:
    return simulate_frame(_SEED, _PATIENT, frame)
