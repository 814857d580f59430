"""Measures of a nerve in one frame: its size, shape, depth, echo and border. Descriptions, never a diagnosis.

``docs/method.md`` has each measure's definition and source.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from edgefusion.arrays import as_unit
from edgefusion.data.clip import Region, Spacing
from edgefusion.errors import UsageError

if TYPE_CHECKING:
    from edgefusion.inference.predictor import Prediction


@dataclass(frozen=True)
class NerveMeasures:
    """Measures of one label in one frame, those of its largest region where it has several.

    Where the label is not in the frame, ``regions`` and the areas are 0 and all else is None.
    """

    unit: Literal["mm", "px"]
    """Unit of all lengths; mm where the spacing is known. Areas have its square."""
    regions: int
    """Number of regions of the label; pixels that touch at a corner belong together."""
    area_total: float
    """Cross-sectional area of all regions together, mm² or px."""
    area: float
    """Cross-sectional area of the largest region, mm² or px. The measures below are of this region."""
    centroid: tuple[float, float] | None = None
    """Centre of mass, (x, y) from the left and the upper border of the frame, mm or px."""
    feret_max: float | None = None
    """Largest caliper diameter, mm or px."""
    feret_min: float | None = None
    """Smallest caliper diameter, mm or px."""
    perimeter: float | None = None
    """Length of the border, holes included, mm or px."""
    circularity: float | None = None
    """4π area / perimeter², in [0, 1]; 1 for a disc."""
    depth_nearest: float | None = None
    """From the skin straight down to the highest point, mm or px."""
    depth_centroid: float | None = None
    """From the skin straight down to the level of the centre of mass, mm or px."""
    echo_mean: float | None = None
    """Mean grey level inside, in [0, 1] of full scale."""
    echo_around: float | None = None
    """Median grey level of the ring around, in [0, 1] of full scale; None where the frame has no room for a ring."""
    hypoechoic_fraction: float | None = None
    """Share of the pixels inside that are darker than ``echo_around``, in [0, 1]."""
    border_sharpness: float | None = None
    """Mean slope of the grey level across the border, full scales per mm or px; None where it fills the frame."""

    def as_dict(self) -> dict[str, Any]:
        """The measures as JSON can hold them; each name ends in its unit, such as ``feret_max_mm`` or ``area_px``."""
        length, area = self.unit, "mm2" if self.unit == "mm" else "px"
        named = {
            "regions": self.regions,
            f"area_total_{area}": self.area_total,
            f"area_{area}": self.area,
            f"centroid_{length}": None if self.centroid is None else [round(value, 4) for value in self.centroid],
            f"feret_max_{length}": self.feret_max,
            f"feret_min_{length}": self.feret_min,
            f"perimeter_{length}": self.perimeter,
            "circularity": self.circularity,
            f"depth_nearest_{length}": self.depth_nearest,
            f"depth_centroid_{length}": self.depth_centroid,
            "echo_mean": self.echo_mean,
            "echo_around": self.echo_around,
            "hypoechoic_fraction": self.hypoechoic_fraction,
            f"border_sharpness_per_{length}": self.border_sharpness,
        }
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in named.items()}


def measure(
    prediction: Prediction | NDArray[np.integer[Any]],
    image: NDArray[Any],
    spacing: Spacing | None = None,
    label: int = 0,
    region: Region | None = None,
    skin_row: int | None = None,
) -> NerveMeasures:
    """Measure a label in a frame.

    Args:
        prediction: Of the frame, or just its H×W label mask, in which k + 1 is label k.
        image: The frame, H×W grey or H×W×3, uint8, uint16, or float in [0, 1].
        spacing: Height and width of a pixel in mm; None gives measures in px.
        label: Place of the label in the bundle's list, from 0.
        region: Where the ultrasound image lies in the frame; None takes all of the frame. Nothing outside is measured.
        skin_row: First row of the skin; None takes the region's first row, where a probe touches it.

    Raises:
        UsageError: If the mask is not of the frame's size, or the spacing is not positive.
    """
    mask = prediction if isinstance(prediction, np.ndarray) else prediction.mask
    if mask.ndim != 2 or mask.shape != image.shape[:2]:
        raise UsageError(f"A mask of shape {mask.shape} does not fit a frame of shape {image.shape}.")
    if spacing is not None and not all(math.isfinite(side) and side > 0 for side in spacing):
        raise UsageError(f"A pixel cannot be {spacing[0]} × {spacing[1]} mm.", "Leave the spacing out if unknown.")
    unit: Literal["mm", "px"] = "px" if spacing is None else "mm"
    pixel = spacing or (1.0, 1.0)
    height, width = pixel
    frame = region or Region(0, 0, *mask.shape)
    labels, picture = frame.crop(mask), frame.crop(image)
    count, numbers, stats, centroids = cv2.connectedComponentsWithStats(
        np.equal(labels, label + 1).view(np.uint8), connectivity=8
    )
    if count == 1:
        return NerveMeasures(unit, 0, 0.0, 0.0)
    # Of equally large regions the first, which begins higher up.
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    area = float(stats[largest, cv2.CC_STAT_AREA]) * height * width
    # Centres of mass are counted from the centre of the first pixel, lengths here from the frame's border.
    x, y = centroids[largest] + (frame.left + 0.5, frame.top + 0.5)
    skin = frame.top if skin_row is None else skin_row

    radius = math.sqrt(area / math.pi)
    window = _window(stats[largest], radius, pixel, numbers.shape)
    inside, free = numbers[window] == largest, labels[window] == 0
    grey = as_unit(picture[window])
    perimeter = float(np.hypot(*_slopes(inside, pixel, beyond=cv2.BORDER_CONSTANT)).sum()) * height * width
    feret_min, feret_max = _feret(inside, pixel)
    around = _level_around(grey, inside, free, radius, pixel)
    return NerveMeasures(
        unit=unit,
        regions=count - 1,
        area_total=float(stats[1:, cv2.CC_STAT_AREA].sum()) * height * width,
        area=area,
        centroid=(float(x) * width, float(y) * height),
        feret_max=feret_max,
        feret_min=feret_min,
        perimeter=perimeter,
        circularity=min(1.0, 4 * math.pi * area / perimeter**2),
        depth_nearest=float(frame.top + stats[largest, cv2.CC_STAT_TOP] - skin) * height,
        depth_centroid=(float(y) - skin) * height,
        echo_mean=float(grey[inside].mean()),
        echo_around=around,
        hypoechoic_fraction=None if around is None else float((grey[inside] < around).mean()),
        border_sharpness=_sharpness(grey, inside, pixel),
    )


def _window(stats: NDArray[np.int32], radius: float, pixel: Spacing, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns that hold a region and the ring around it, as far as the frame goes."""
    left, top, columns, rows = (int(value) for value in stats[:4])
    down, across = (math.ceil(radius / side) + margin for side, margin in zip(pixel, _margins(pixel), strict=True))
    return (
        slice(max(0, top - down), min(shape[0], top + rows + down)),
        slice(max(0, left - across), min(shape[1], left + columns + across)),
    )


def _sigmas(pixel: Spacing) -> tuple[float, float]:
    """Rows and columns of a Gaussian whose standard deviation is a pixel's longer side, in all directions."""
    # Beyond ten pixels a spacing is more likely wrong than true, and smoothing would take for ever.
    return min(max(pixel) / pixel[0], 10.0), min(max(pixel) / pixel[1], 10.0)


def _margins(pixel: Spacing) -> tuple[int, int]:
    """Rows and columns from a region at which its smoothed mask, and the slope of it, are 0."""
    down, across = _sigmas(pixel)
    return math.ceil(4 * down) + 2, math.ceil(4 * across) + 2


def _slopes(values: NDArray[Any], pixel: Spacing, beyond: int = cv2.BORDER_REPLICATE) -> NDArray[np.float64]:
    """Derivatives of the smoothed values downwards and to the right, 2×H×W, per unit of length.

    Beyond the frame its border is repeated, or with ``cv2.BORDER_CONSTANT`` there are zeros, and the result is larger
    by the margins.
    """
    down, across = _margins(pixel)
    padded = cv2.copyMakeBorder(values.astype(np.float64), down, down, across, across, beyond)
    sigma_down, sigma_across = _sigmas(pixel)
    smooth = cv2.GaussianBlur(padded, (2 * across - 3, 2 * down - 3), sigma_across, sigmaY=sigma_down)
    slopes = np.stack(np.gradient(smooth, *pixel))
    return slopes if beyond == cv2.BORDER_CONSTANT else slopes[:, down:-down, across:-across]


def _feret(inside: NDArray[np.bool_], pixel: Spacing) -> tuple[float, float]:
    """Smallest and largest caliper diameter of the convex hull of the middles of the pixels' sides."""
    rows = np.flatnonzero(inside.any(axis=1))
    first, last = inside[rows].argmax(axis=1), inside.shape[1] - 1 - inside[rows, ::-1].argmax(axis=1)
    # In half pixels, so that the hull is found among whole numbers; stretching it to mm leaves it a hull.
    sides = ((first, -1, 0), (last, 1, 0), (first, 0, -1), (last, 0, -1), (first, 0, 1), (last, 0, 1))
    middles = np.concatenate([np.stack([2 * column + x, 2 * rows + y], axis=1) for column, x, y in sides])
    hull = cv2.convexHull(middles.astype(np.int32)).reshape(-1, 2) * (pixel[1] / 2, pixel[0] / 2)
    edges = np.roll(hull, -1, axis=0) - hull
    normals = np.stack([-edges[:, 1], edges[:, 0]], axis=1) / np.hypot(*edges.T)[:, None]
    # The narrowest pair of parallel tangents lies along an edge, the widest pair of points are corners.
    across = normals @ hull.T
    distances = np.hypot(*(hull[:, None] - hull[None]).transpose(2, 0, 1))
    return float(np.ptp(across, axis=1).min()), float(distances.max())


def _level_around(
    grey: NDArray[np.float32], inside: NDArray[np.bool_], free: NDArray[np.bool_], radius: float, pixel: Spacing
) -> float | None:
    """Median grey level of the unlabelled pixels that are no farther from the region than ``radius``."""
    ring = free & (distance_transform_edt(~inside, sampling=pixel) <= radius)
    return float(np.median(grey[ring])) if ring.any() else None


def _sharpness(grey: NDArray[np.float32], inside: NDArray[np.bool_], pixel: Spacing) -> float | None:
    """Absolute slope of the grey level along the border's normal, averaged over the border's length in the frame."""
    # The smoothed mask's slope points inwards, and adds up to the border's length: normal and weight in one.
    border = _slopes(inside, pixel)
    length = np.hypot(*border).sum()
    return float(np.abs((_slopes(grey, pixel) * border).sum(axis=0)).sum() / length) if length else None
