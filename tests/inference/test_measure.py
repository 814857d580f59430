"""Measures against shapes whose geometry is known: within 2 % or 1 px."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray

from edgefusion.data.clip import Region
from edgefusion.data.phantom import draw_patient, simulate_frame
from edgefusion.data.phantom.anatomy import nerve_structures, pose_in_frame
from edgefusion.errors import UsageError
from edgefusion.inference.measure import NerveMeasures, measure

SIZE = (160, 200)
ROWS, COLUMNS = np.indices(SIZE)
GREY = np.full(SIZE, 0.5)

Mask = NDArray[np.uint8]


def ellipse(
    a: float, b: float, angle: float, x: float = 100.3, y: float = 80.2, pixel: tuple[float, float] = (1, 1)
) -> Mask:
    """Half axes a and b and place in units of length; pixels whose centre lies inside."""
    right, down = (COLUMNS + 0.5) * pixel[1] - x, (ROWS + 0.5) * pixel[0] - y
    along = right * math.cos(angle) + down * math.sin(angle)
    across = down * math.cos(angle) - right * math.sin(angle)
    return ((along / a) ** 2 + (across / b) ** 2 <= 1).astype(np.uint8)


def ellipse_perimeter(a: float, b: float) -> float:
    t = np.linspace(0, 2 * np.pi, 100_001)
    return float(np.hypot(np.diff(a * np.cos(t)), np.diff(b * np.sin(t))).sum())


def close(value: float | None, truth: float, pixel: float = 1.0) -> bool:
    return value is not None and abs(value - truth) <= max(0.02 * truth, pixel)


@settings(max_examples=60, deadline=None)
@given(st.floats(8, 45), st.floats(0.3, 1), st.floats(0, math.pi), st.floats(90, 110), st.floats(70, 90))
def test_ellipses(a: float, flat: float, angle: float, x: float, y: float) -> None:
    b = max(flat * a, 5)
    found = measure(ellipse(a, b, angle, x, y), GREY)
    perimeter = ellipse_perimeter(a, b)
    # The mask itself is off the ellipse: a quarter of a pixel along the border at most, one pixel in diameter.
    assert close(found.area, math.pi * a * b, 0.25 * perimeter)
    assert close(found.feret_max, 2 * a, 1.05)
    assert close(found.feret_min, 2 * b, 1.05)  # a border that only just misses two rows of pixels costs both
    assert close(found.perimeter, perimeter, math.pi)
    assert found.centroid == pytest.approx((x, y), abs=0.3)
    top = y - math.hypot(a * math.sin(angle), b * math.cos(angle))
    assert close(found.depth_nearest, top)
    assert close(found.depth_centroid, y)


@pytest.mark.parametrize("radius", [5, 8, 12, 20, 40, 70])
def test_discs_are_round(radius: int) -> None:
    found = measure(ellipse(radius, radius, 0), GREY)
    assert found.circularity is not None
    assert found.circularity > 0.98
    assert found.perimeter == pytest.approx(2 * math.pi * radius, rel=0.04 if radius < 8 else 0.01)


def test_circularity_of_an_ellipse_and_perimeter_of_a_square() -> None:
    a, b = 50, 20
    found = measure(ellipse(a, b, 0.4), GREY)
    assert found.circularity == pytest.approx(4 * math.pi * math.pi * a * b / ellipse_perimeter(a, b) ** 2, rel=0.02)
    square = np.zeros(SIZE, np.uint8)
    square[40:120, 40:120] = 1
    assert measure(square, GREY).perimeter == pytest.approx(320, rel=0.02)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (30, 1), (20, 50), (70, 31)])
def test_rectangles(height: int, width: int) -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[15 : 15 + height, 22 : 22 + width] = 1
    found = measure(mask, GREY)
    assert found.area == height * width
    assert close(found.feret_max, math.hypot(height, width))
    assert close(found.feret_min, min(height, width))
    assert (found.depth_nearest, found.depth_centroid) == (15, 15 + height / 2)
    assert found.centroid == (22 + width / 2, 15 + height / 2)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.03, 0.2), st.floats(0.03, 0.2), st.floats(0, math.pi))
def test_pixels_that_are_not_square(height: float, width: float, angle: float) -> None:
    pixel = (height, width)
    middle_x, middle_y = 100 * width, 80 * height
    a = 0.6 * min(middle_x, middle_y)
    b = max(0.6 * a, 6 * max(pixel))
    a = max(a, b)
    found = measure(ellipse(a, b, angle, middle_x, middle_y, pixel), GREY, pixel)
    assert found.unit == "mm"
    assert close(found.area, math.pi * a * b, 0.25 * ellipse_perimeter(a, b) * max(pixel))
    assert close(found.feret_max, 2 * a, max(pixel))
    assert close(found.feret_min, 2 * b, max(pixel))
    assert close(found.perimeter, ellipse_perimeter(a, b), math.pi * max(pixel))
    assert close(found.depth_centroid, middle_y, max(pixel))


@pytest.mark.parametrize("patient", [0, 1, 2])
def test_phantoms(patient: int) -> None:
    """Against the moments and the caliper of the known outline's own pixels, worked out another way."""
    shot = next(shot for frame in range(12) if (shot := simulate_frame(5, patient, frame)).mask.any())
    side = shot.spacing_mm
    found = measure(shot.mask, shot.image, (side, side))
    rows, columns = np.nonzero(shot.mask)
    assert found.area == pytest.approx(len(rows) * side**2)
    angles = np.linspace(0, np.pi, 720, endpoint=False)
    widths = [np.ptp(columns * np.cos(t) + rows * np.sin(t)) + 0.5 * (abs(np.cos(t)) + abs(np.sin(t))) for t in angles]
    assert close(found.feret_max, max(widths) * side, side)
    assert close(found.feret_min, min(widths) * side, side)
    assert found.depth_nearest == pytest.approx(rows.min() * side)
    # The plexus: dark fascicles in a bright sheath, and a border that can be seen.
    assert 0 < (found.hypoechoic_fraction or 0) < 1
    assert (found.border_sharpness or 0) > 0


@pytest.mark.parametrize("number", range(4))
def test_outlines_of_phantoms(number: int) -> None:
    """Against the polygon itself, in mm: its area by the shoelace formula, its caliper widths, its length.

    The mask has the pixels whose centres lie inside. Phantoms also paint those that the outline only touches.
    """
    size, scale = (420, 580), 420.0
    patient = draw_patient(np.random.default_rng([5, number]))
    for frame in range(12):
        pose = pose_in_frame(patient, frame, np.random.default_rng([5, number, frame]))
        if nerve := nerve_structures(patient.nerve, pose, frame):
            break
    side = patient.scanner.depth_mm / scale
    outline = (pose.to_frame(nerve[0].outline) * scale + (size[1] / 2, 0)) * side
    rows, columns = np.indices(size)
    inside = Polygon(outline).contains_points(np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1) * side)
    x, y = outline[:-1].T
    turns = np.linspace(0, np.pi, 1440, endpoint=False)
    widths = np.ptp(x[:, None] * np.cos(turns) + y[:, None] * np.sin(turns), axis=0)
    found = measure(inside.reshape(size).astype(np.uint8), np.zeros(size, np.uint8), (side, side))
    assert close(found.area, abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2, side**2)
    assert close(found.feret_max, widths.max(), side)
    assert close(found.feret_min, widths.min(), side)
    assert close(found.perimeter, np.hypot(*np.diff(outline, axis=0).T).sum(), side)
    assert close(found.depth_nearest, y.min(), side)
    assert close(found.depth_centroid, polygon_centre(x, y), side)


def polygon_centre(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """The row of a polygon's centre of mass."""
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y
    return float(((y + np.roll(y, -1)) * cross).sum() / (3 * cross.sum()))


blobs = st.builds(
    lambda seed, low: (np.kron(np.random.default_rng(seed).random((8, 8)), np.ones((5, 5))) > low).astype(np.uint8),
    st.integers(0, 2**32 - 1),
    st.floats(0.2, 0.95),
)


def same(one: NerveMeasures, other: NerveMeasures, leave_out: tuple[str, ...] = ()) -> None:
    first, second = one.as_dict(), other.as_dict()
    for name in first.keys() - set(leave_out):
        assert first[name] == pytest.approx(second[name], abs=2e-4), name


def placed(values: NDArray[Any], top: int, left: int) -> NDArray[Any]:
    frame = np.zeros((140, 140), values.dtype)
    frame[top : top + values.shape[0], left : left + values.shape[1]] = values
    return frame


@settings(max_examples=40, deadline=None)
@given(blobs, st.integers(0, 2**32 - 1), st.integers(45, 55), st.integers(45, 55))
def test_moving_the_frame_moves_only_the_place(blob: Mask, seed: int, top: int, left: int) -> None:
    grey = np.random.default_rng(seed).random((140 + 20, 140 + 20))
    one = measure(placed(blob, 45, 45), grey[10:150, 10:150])
    dy, dx = top - 45, left - 45
    other = measure(placed(blob, top, left), grey[10 - dy : 150 - dy, 10 - dx : 150 - dx])
    same(one, other, ("centroid_px", "depth_nearest_px", "depth_centroid_px"))
    if one.regions:
        assert other.depth_nearest == (one.depth_nearest or 0) + dy
        assert np.subtract(other.centroid or (), one.centroid or ()) == pytest.approx((dx, dy))


@settings(max_examples=40, deadline=None)
@given(blobs, st.integers(0, 2**32 - 1))
def test_a_quarter_turn_changes_only_place_and_depth(blob: Mask, seed: int) -> None:
    mask, grey = placed(blob, 50, 40), np.random.default_rng(seed).random((140, 140))
    # Of two equally large regions the turn may choose the other.
    one = measure(mask, grey, (0.1, 0.2))
    other = measure(np.rot90(mask), np.rot90(grey), (0.2, 0.1))
    if one.regions == 1:
        same(one, other, ("centroid_mm", "depth_nearest_mm", "depth_centroid_mm"))
    assert (one.regions, one.area_total) == (other.regions, pytest.approx(other.area_total))


@settings(max_examples=40, deadline=None)
@given(blobs, st.floats(0.02, 0.5), st.floats(0.02, 0.5), st.floats(0.5, 4))
def test_lengths_and_areas_follow_the_spacing(blob: Mask, height: float, width: float, factor: float) -> None:
    mask, grey = placed(blob, 50, 40), np.random.default_rng(1).random((140, 140))
    one = measure(mask, grey, (height, width))
    other = measure(mask, grey, (height * factor, width * factor))
    if not one.regions:
        assert other == one
        return
    powers = {"area": 2, "area_total": 2, "border_sharpness": -1, "unit": None, "regions": None}
    powers |= dict.fromkeys(("circularity", "echo_mean", "echo_around", "hypoechoic_fraction"), 0)
    for name, value in vars(one).items():
        power = powers.get(name, 1)
        scaled = value if power is None or value is None else np.multiply(value, factor**power)
        assert vars(other)[name] == (scaled if power is None or value is None else pytest.approx(scaled, rel=1e-6)), (
            name
        )


def test_echo_inside_and_around() -> None:
    mask = ellipse(20, 20, 0)
    grey = np.where(mask, 0.25, 0.6)
    grey[(ROWS % 2 == 0) & (mask == 1)] = 0.75
    found = measure(mask, grey)
    assert found.echo_mean == pytest.approx(0.5, abs=0.01)
    assert found.echo_around == pytest.approx(0.6)
    assert found.hypoechoic_fraction == pytest.approx(0.5, abs=0.02)


def test_other_labels_are_not_part_of_the_ring() -> None:
    mask = ellipse(20, 20, 0)
    mask[(ellipse(60, 60, 0) == 1) & (mask == 0) & (COLUMNS > 60)] = 2
    grey = np.where(mask == 2, 1.0, 0.3)
    assert measure(mask, grey).echo_around == pytest.approx(0.3)


def test_sharpness_is_the_slope_across_the_border() -> None:
    mask = ellipse(30, 30, 0)
    away = np.hypot(COLUMNS + 0.5 - 100.3, ROWS + 0.5 - 80.2)
    assert measure(mask, np.clip(0.1 + 0.005 * away, 0, 1)).border_sharpness == pytest.approx(0.005, rel=0.02)
    assert measure(mask, np.clip(0.1 + 0.005 * away, 0, 1), (0.1, 0.1)).border_sharpness == pytest.approx(
        0.05, rel=0.02
    )
    # Along a straight slope the normal meets it at every angle: the mean of |cos| is 2/π.
    assert measure(mask, 0.1 + 0.004 * COLUMNS).border_sharpness == pytest.approx(0.004 * 2 / math.pi, rel=0.02)
    assert measure(mask, GREY).border_sharpness == 0


def test_the_largest_region_is_measured_and_all_are_counted() -> None:
    mask = ellipse(20, 20, 0)
    alone = measure(mask, GREY)
    mask[2:5, 2:5] = 1
    found = measure(mask, GREY)
    assert (found.regions, found.area_total, found.area) == (2, alone.area + 9, alone.area)
    assert found.centroid == alone.centroid
    mask[5, 5] = 1  # corner to corner
    assert measure(mask, GREY).regions == 2


def test_an_absent_label_has_no_measures() -> None:
    found = measure(ellipse(20, 20, 0), GREY, label=1)
    assert found == NerveMeasures("px", 0, 0.0, 0.0)
    assert json.loads(json.dumps(found.as_dict()))["feret_max_px"] is None


def test_depth_counts_from_the_skin() -> None:
    mask = ellipse(20, 20, 0)
    whole = measure(mask, GREY)
    region = Region(top=30, left=10, height=120, width=180)
    assert whole.depth_nearest is not None
    assert measure(mask, GREY, region=region).depth_nearest == whole.depth_nearest - 30
    assert measure(mask, GREY, region=region, skin_row=40).depth_nearest == whole.depth_nearest - 40
    assert measure(mask, GREY, region=region).centroid == whole.centroid
    assert measure(mask, GREY, region=Region(0, 0, 30, 200)).regions == 0


def test_a_label_may_fill_the_frame() -> None:
    found = measure(np.ones((4, 6), np.uint8), np.full((4, 6), 200, np.uint8))
    assert (found.area, found.echo_around, found.hypoechoic_fraction, found.border_sharpness) == (24, None, None, None)


def test_names_say_the_unit() -> None:
    mask = ellipse(20, 20, 0)
    assert {"area_px", "feret_min_px", "border_sharpness_per_px"} <= measure(mask, GREY).as_dict().keys()
    assert {"area_mm2", "feret_min_mm", "border_sharpness_per_mm"} <= measure(mask, GREY, (0.1, 0.1)).as_dict().keys()


@pytest.mark.parametrize("spacing", [(0.0, 0.1), (0.1, -1.0), (math.nan, 0.1)])
def test_impossible_spacings_are_refused(spacing: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="mm"):
        measure(ellipse(20, 20, 0), GREY, spacing)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(UsageError, match="does not fit"):
        measure(np.zeros((3, 4), np.uint8), GREY)
