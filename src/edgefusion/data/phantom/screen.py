"""A simulated scanner's screen around a moving image: text, rulers, a clock, bars, other panels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefusion.data.clip import Region

Grey = NDArray[np.uint8]

_WORDS = ("GAIN 62", "MI 0.9", "TIS 0.4", "DR 60", "L12-4", "Nerve", "FR 31 Hz", "Depth 4.0 cm", "HOSPITAL", "ID 0042")


@dataclass(frozen=True)
class Screen:
    """What stands around the image, and how the image moves. Drawn by ``draw_screen``."""

    still: Grey
    """The screen without image and clock, H×W."""
    marks: Grey
    """What is drawn over the image, the size of the image; 0 where nothing is."""
    shape: NDArray[np.bool_]
    """Where the image is shown, its size: all of it, or a fan."""
    region: Region
    """Where it lies on the screen: the truth that ``find_region`` is held against."""
    clock: tuple[int, int] | None
    """Where the seconds are counted, column and row."""
    bar: tuple[int, int, int] | None
    """Column, row and width of the bar that shows the place in the clip."""
    trace: tuple[int, int, int] | None
    """Column, row and width of an ECG."""
    pan: tuple[float, float]
    """Pixels a frame by which the tissue moves, right and down."""
    noise: float
    """Standard deviation of what changes although nothing moves, grey levels."""

    def frames(self, images: Sequence[Grey], count: int, rng: np.random.Generator) -> list[Grey]:
        """``count`` screens with an image that moves and slowly turns from one of ``images`` into the next."""
        return [self._frame(images, number, count, rng) for number in range(count)]

    def _frame(self, images: Sequence[Grey], number: int, count: int, rng: np.random.Generator) -> Grey:
        place = number / count * (len(images) - 1)
        one, other = images[int(place)], images[min(int(place) + 1, len(images) - 1)]
        share = place % 1
        image = cv2.addWeighted(one, 1 - share, other, share, 0).astype(np.float32)
        height, width = self.shape.shape
        # There and back, so that the edge of the picture stays away.
        swing = 12 * np.sin(number / 12)
        shift = np.array([[1, 0, self.pan[0] * swing], [0, 1, self.pan[1] * swing]], np.float32)
        image = cv2.warpAffine(image, shift, (width, height), borderMode=cv2.BORDER_REFLECT)
        # Noise passes the same logarithm as the echo: where there is no echo it is cut off.
        image = image + self.noise * rng.standard_normal((height, width), dtype=np.float32)
        shown = np.where(self.marks > 0, self.marks, np.clip(image, 0, 255)).astype(np.uint8)
        screen = self.still.copy()
        inside = self.region.crop(screen)
        np.copyto(inside, shown, where=self.shape)
        if self.clock:
            text = f"12:{number // 1500:02d}:{number // 25 % 60:02d}"
            cv2.putText(screen, text, self.clock, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 220, 1)
        if self.bar:
            left, top, long = self.bar
            cv2.rectangle(screen, (left, top), (left + long * number // count, top + 3), 160, -1)
        if self.trace:
            left, top, long = self.trace
            columns = np.arange(long)
            beat = np.exp(-((((columns + 4 * number) % 90) - 45.0) ** 2) / 8)
            points = np.stack([left + columns, top - 14 * beat], axis=1).astype(np.int32)
            cv2.polylines(screen, [points], False, 200, 1)
        return screen


def draw_screen(size: tuple[int, int], rng: np.random.Generator) -> Screen:
    """Draw a screen around an image of this height and width; one in eight has nothing around it."""
    height, width = size
    shape = _fan(height, width, rng) if rng.random() < 0.3 else np.ones(size, bool)
    rows, columns = np.flatnonzero(shape.any(1)), np.flatnonzero(shape.any(0))
    bare = rng.random() < 0.125
    if bare:
        shape, rows, columns = np.ones(size, bool), np.arange(height), np.arange(width)
    left, right = (0 if bare else int(rng.uniform(0.05, 0.45) * width) for _ in range(2))
    above, below = (0 if bare else int(rng.uniform(0.07, 0.3) * height) for _ in range(2))
    still = np.full((above + height + below, left + width + right), rng.choice([0, 0, 18, 45, 180]), np.uint8)
    marks = np.zeros(size, np.uint8)
    cv2.putText(marks, rng.choice(["R", "L", "V"]), (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 230, 1)
    box = Region(0, 0, height, width)
    place = Region(above, left, height, width)
    if not bare:
        _decorate(still, place, rng)
        # Outside a fan the screen goes on, and its background with it.
        shape = shape & ~((marks > 0) & ~shape)
        box = Region(int(rows[0]), int(columns[0]), int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1)
    foot = above + height + max(6, below // 2)
    slow = rng.random() < 0.25
    return Screen(
        still=still,
        marks=box.crop(marks).copy(),
        shape=box.crop(shape).copy(),
        region=Region(above + box.top, left + box.left, box.height, box.width),
        clock=None if bare or rng.random() < 0.3 else (left + int(rng.uniform(0, 0.6) * width), max(12, above - 6)),
        bar=None if bare or rng.random() < 0.6 else (left, min(foot, len(still) - 5), width),
        trace=None if bare or below < 50 or rng.random() < 0.6 else (left, min(foot + 14, len(still) - 3), width),
        pan=(0.0, 0.0) if slow else (float(rng.normal(0, 0.8)), float(rng.normal(0, 0.4))),
        noise=float(rng.uniform(2, 6)),
    )


def _fan(height: int, width: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """What a curved probe shows: between two circles and two rays."""
    rows, columns = np.mgrid[:height, :width]
    apex = -rng.uniform(0.15, 0.5) * height
    radius = np.hypot(rows - apex, columns - width / 2)
    angle = np.abs(np.arctan2(columns - width / 2, rows - apex))
    inner, outer = rng.uniform(0.02, 0.1) * height - apex, height - apex
    return np.asarray((radius > inner) & (radius < outer) & (angle < rng.uniform(0.35, 0.6)))


def _decorate(still: Grey, place: Region, rng: np.random.Generator) -> None:
    height, width = still.shape
    ink = 30 if still[0, 0] > 128 else int(rng.integers(120, 256))
    right = place.left + place.width
    for _ in range(int(rng.integers(4, 12))):
        at = (int(rng.uniform(0, width)), int(rng.uniform(0, height)))
        cv2.putText(still, str(rng.choice(_WORDS)), at, cv2.FONT_HERSHEY_SIMPLEX, rng.uniform(0.3, 0.5), ink, 1)
    side = right + 3 if rng.random() < 0.5 else place.left - 9
    for tick in range(place.top, place.top + place.height, max(8, place.height // 20)):
        cv2.line(still, (side, tick), (side + 5, tick), ink, 1)
    if width - right > 40:
        bar = np.linspace(255, 0, place.height // 2).astype(np.uint8)
        still[place.top : place.top + len(bar), width - 24 : width - 12] = bar[:, None]
    if place.left > 0.3 * place.width and rng.random() < 0.5:
        frozen = rng.integers(0, 160, (place.height // 2, place.left - 20)).astype(np.uint8)
        still[place.top : place.top + len(frozen), 10 : place.left - 10] = cv2.GaussianBlur(frozen, (5, 5), 0)
    # Where the image goes, nothing else is, also beside a fan.
    place.crop(still)[...] = still[0, 0] if rng.random() < 0.7 else 0
