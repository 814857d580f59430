"""A clip: the frames of one file in their order. A single picture is a clip of one frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgefusion.errors import UsageError

Spacing = tuple[float, float]
"""Height and width of a pixel in mm."""


@dataclass(frozen=True)
class Region:
    """The rectangle of a frame that holds the ultrasound image, in pixels."""

    top: int
    """Its first row."""
    left: int
    """Its first column."""
    height: int
    """Rows, at least 1."""
    width: int
    """Columns, at least 1."""

    def crop(self, image: NDArray[Any]) -> NDArray[Any]:
        """The part of an image H×W or H×W×K inside the region, as a view.

        Raises:
            UsageError: If the region does not lie inside the image.
        """
        bottom, right = self.top + self.height, self.left + self.width
        inside = 0 <= self.top < bottom <= image.shape[0] and 0 <= self.left < right <= image.shape[1]
        if not inside:
            raise UsageError(
                f"The region of rows {self.top} to {bottom} and columns {self.left} to {right} does not lie in a frame "
                f"of {image.shape[0]}×{image.shape[1]}."
            )
        return image[self.top : bottom, self.left : right]


@dataclass(frozen=True)
class Clip:
    """Frames that are decoded when they are asked for, so that a clip of any length fits into memory."""

    path: Path
    """The file, absolute."""
    read: Callable[[], Iterator[NDArray[Any]]]
    """Starts at the first frame and yields each one, H×W grey uint8 or uint16. Raises a ``DataError`` at a frame that
    cannot be decoded; a video leaves such frames out, and says at the end how many."""
    count: int | None
    """Number of frames, None where the file does not say."""
    rate: float | None = None
    """Frames a second, None for a single picture."""
    spacing: Spacing | None = None
    """Height and width of a pixel in mm, None where the file does not say."""
    region: Region | None = None
    """Where the ultrasound image lies, None where the file does not say."""
