"""The compiled filters against slow, obvious float64 versions, and what must hold for any image."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage

from edgefusion.channels.bands import count_bands
from edgefusion.channels.diffusion import METHODS, despeckle, despeckle_batch
from edgefusion.channels.fed import fed_steps, schedule
from edgefusion.errors import UsageError

Image = NDArray[np.float64]
RATE = 50 * math.log(10) / 20


def speckled(rows: int = 72, columns: int = 90, seed: int = 0, blur: float = 1.5) -> NDArray[np.float32]:
    """Fully developed speckle over a dark disk and a bright bar, log-compressed to 50 dB."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :columns]
    echo = np.full((rows, columns), 0.3)
    echo[(y - rows / 2) ** 2 + (x - columns / 3) ** 2 < (rows / 5) ** 2] = 0.08
    echo[rows // 4 : rows // 3, columns // 2 :] = 1
    field = rng.normal(size=(2, rows, columns)) * echo
    envelope = np.hypot(*ndimage.gaussian_filter(field, (0, blur, blur)))
    return np.clip(1 + 20 * np.log10(envelope / envelope.max() + 1e-12) / 50, 0, 1).astype(np.float32)


def neighbours(u: Image) -> tuple[Image, Image, Image, Image]:
    padded = np.pad(u, 1, mode="edge")
    return padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]


def divergence(u: Image, c: Image) -> Image:
    return sum((c + ck) / 2 * (uk - u) for uk, ck in zip(neighbours(u), neighbours(c), strict=True))  # type: ignore


def srad_coefficient(u: Image, time: float) -> Image:
    differences = [uk - u for uk in neighbours(u)]
    s1, s2 = sum(differences), sum(d * d for d in differences)
    q_squared = np.maximum(s2 / 2 - s1**2 / 16, 0) / (u + s1 / 4) ** 2
    q0_squared = math.exp(-4 * time / 6) ** 2
    return np.clip(1 / (1 + (q_squared - q0_squared) / (q0_squared * (1 + q0_squared))), 0, 1)


def dpad_coefficient(u: Image, time: float) -> Image:
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(u, 3, mode="edge"), (7, 7))
    q_squared = np.maximum(windows.var(axis=(2, 3)) / windows.mean(axis=(2, 3)) ** 2, 1e-5)
    q0_squared = 2 * np.sort(q_squared.ravel())[(q_squared.size - 1) // 2]
    return np.clip((1 + 1 / q_squared) / (1 + 1 / q0_squared), 0, 1)


def perona_malik_coefficient(u: Image, time: float) -> Image:
    up, down, left, right = neighbours(ndimage.gaussian_filter(u, 1.0, mode="nearest", radius=3))
    return np.exp(-(((right - left) / 2) ** 2 + ((down - up) / 2) ** 2) / 0.04**2)


def evolve(u: Image, coefficient: Callable[[Image, float], Image], step: float, count: int) -> Image:
    for index in range(count):
        u = u + step * divergence(u, coefficient(u, index * step))
    return u


def oriented_tensor(u: Image) -> tuple[Image, Image, Image]:
    """For frames of even size."""
    half = (np.log(u) / RATE).reshape(u.shape[0] // 2, 2, u.shape[1] // 2, 2).mean(axis=(1, 3))
    scharr = np.array([[-3, -10, -3], [0, 0, 0], [3, 10, 3]]) / 32
    dy, dx = (ndimage.correlate(half, k, mode="nearest") for k in (scharr, scharr.T))
    at = np.meshgrid(*((np.arange(n) + 0.5) / 2 - 0.5 for n in u.shape), indexing="ij")

    def smooth(product: Image) -> Image:
        blurred = ndimage.gaussian_filter(product, 2.0, mode="nearest", radius=6)
        return ndimage.map_coordinates(blurred, at, order=1, mode="nearest")

    xx, xy, yy = smooth(dx * dx), smooth(dx * dy), smooth(dy * dy)
    strength = np.sqrt((xx - yy) ** 2 + 4 * xy**2 + (1e-3 * (xx + yy) + 1e-6) ** 2)
    cosine, sine = (xx - yy) / strength, 2 * xy / strength
    missing = 1 - dpad_coefficient(u, 0)
    return 1 - missing * (1 + cosine) / 2, -missing * sine / 2, 1 - missing * (1 - cosine) / 2


def tensor_divergence(u: Image, tensor: tuple[Image, Image, Image]) -> Image:
    a, b, d = tensor
    (_, _, u_west, u_east), (_, _, a_west, a_east) = neighbours(u), neighbours(a)
    (u_north, u_south, _, _), (d_north, d_south, _, _) = neighbours(u), neighbours(d)
    straight = (a + a_east) / 2 * (u_east - u) + (a + a_west) / 2 * (u_west - u)
    straight += (d + d_south) / 2 * (u_south - u) + (d + d_north) / 2 * (u_north - u)
    # Mixed terms: the flux is mirrored with its sign at the border.
    flux_x, flux_y = b * (u_south - u_north) / 2, b * (u_east - u_west) / 2
    x, y = np.pad(flux_x, 1, mode="edge"), np.pad(flux_y, 1, mode="edge")
    x[:, [0, -1]] *= -1
    y[[0, -1]] *= -1
    return straight + (x[1:-1, 2:] - x[1:-1, :-2]) / 2 + (y[2:, 1:-1] - y[:-2, 1:-1]) / 2


@pytest.mark.parametrize(
    ("method", "coefficient", "time"),
    [
        ("srad", srad_coefficient, 0.2),
        ("srad", srad_coefficient, 20.0),
        ("dpad", dpad_coefficient, 0.2),
        ("dpad", dpad_coefficient, 6.0),
    ],
)
def test_explicit_scheme_agrees_with_textbook(
    method: str, coefficient: Callable[[Image, float], Image], time: float
) -> None:
    image = speckled()
    u = evolve(np.exp(image.astype(np.float64) * RATE), coefficient, 0.2, round(time / 0.2))
    assert np.abs(despeckle(image, method, time=time, explicit_step=0.2) - np.log(u) / RATE).max() < 1e-5


def test_dpad_on_a_mostly_flat_frame_agrees_with_textbook() -> None:
    """The median of q² is then its floor, and not what rounding left of a flat window's variance."""
    image = np.full((72, 90), 0.6, dtype=np.float32)
    image[:, :20] = speckled()[:, :20]
    u = evolve(np.exp(image.astype(np.float64) * RATE), dpad_coefficient, 0.2, 10)
    assert np.abs(despeckle(image, "dpad", time=2, explicit_step=0.2) - np.log(u) / RATE).max() < 1e-5


def test_perona_malik_agrees_with_textbook() -> None:
    image = speckled()
    u = evolve(image.astype(np.float64), perona_malik_coefficient, 0.2, 20)
    assert np.abs(despeckle(image, "perona-malik", time=4, explicit_step=0.2) - u).max() < 1e-5


def test_srad_on_grey_levels_agrees_with_textbook() -> None:
    image = 0.1 + 0.9 * speckled()
    u = evolve(image.astype(np.float64), srad_coefficient, 0.2, 20)
    result = despeckle(image, "srad", time=4, explicit_step=0.2, dynamic_range=None)
    assert np.abs(result - u).max() < 1e-5


def test_osrad_agrees_with_textbook() -> None:
    image = speckled()
    u = np.exp(image.astype(np.float64) * RATE)
    for _ in range(20):
        u = u + 0.2 * tensor_divergence(u, oriented_tensor(u))
    expected = np.clip(np.log(u) / RATE, image.min(), image.max())
    assert np.abs(despeckle(image, "osrad", time=4, explicit_step=0.2) - expected).max() < 1e-5


@pytest.mark.parametrize("time", [2.0, 10.0])
def test_srad_by_fed_agrees_with_its_own_textbook(time: float) -> None:
    image = speckled()
    u = np.exp(image.astype(np.float64) * RATE)
    count = max(12, math.ceil(5 * time**0.5))
    for index in range(count):
        start, end = (time * (k / count) ** 2 for k in (index, index + 1))
        # The mean of q0² over the cycle, by a sum; the oracle takes the time at which q0² has that value.
        q0_squared = np.exp(-8 / 6 * np.linspace(start, end, 2001)).mean()
        c = srad_coefficient(u, -6 / 8 * math.log(q0_squared))
        for tau in fed_steps(end - start):
            u = u + tau * divergence(u, c)
    expected = np.clip(np.log(u) / RATE, image.min(), image.max())
    assert np.abs(despeckle(image, "srad", time=time) - expected).max() < 1e-4


def test_dpad_by_fed_agrees_with_its_own_textbook() -> None:
    image = speckled()
    u = np.exp(image.astype(np.float64) * RATE)
    for cycle in schedule(10, 8, None):
        c = dpad_coefficient(u, 0)
        for tau in cycle.taus:
            u = u + float(tau) * divergence(u, c)
    expected = np.clip(np.log(u) / RATE, image.min(), image.max())
    assert np.abs(despeckle(image, "dpad") - expected).max() < 1e-4


@pytest.mark.parametrize("time", [2, 5, 10, 20])
@pytest.mark.parametrize("seed", range(4))
def test_fed_agrees_with_tiny_explicit_steps(time: float, seed: int) -> None:
    image = speckled(160, 200, seed)
    difference = np.abs(despeckle(image, "srad", time=time) - despeckle(image, "srad", time=time, explicit_step=0.01))
    assert difference.mean() < 0.001
    assert difference.max() < 0.01


@pytest.mark.parametrize("method", METHODS)
def test_bands_in_threads_change_nothing(method: str) -> None:
    image = speckled(400, 500)
    assert count_bands(*image.shape, 3) == 3
    alone = despeckle(image, method, threads=1)
    np.testing.assert_array_equal(despeckle(image, method, threads=3), alone)
    np.testing.assert_array_equal(despeckle(image, method, threads=3, explicit_step=0.2, time=3),
                                  despeckle(image, method, threads=1, explicit_step=0.2, time=3))  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_batch_equals_one_by_one(method: str) -> None:
    images = [speckled(40, 50, seed) for seed in range(3)] + [speckled(33, 20)]
    for one, together in zip(images, despeckle_batch(images, method, time=2), strict=True):
        np.testing.assert_array_equal(together, despeckle(one, method, time=2))


grey_images = arrays(
    np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 40)), elements=st.sampled_from([0, 1, 9, 60, 128, 200, 255])
)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25, deadline=None)
@given(image=grey_images, decompressed=st.booleans())
def test_any_image_stays_finite_and_in_range(method: str, image: NDArray[np.uint8], decompressed: bool) -> None:
    result = despeckle(image, method, dynamic_range=50.0 if decompressed else None)
    assert result.shape == image.shape
    assert result.dtype == np.float32
    assert np.isfinite(result).all()
    assert result.min() >= np.float32(image.min() / 255)
    assert result.max() <= np.float32(image.max() / 255)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("turn", [np.fliplr, np.flipud, np.transpose, np.rot90], ids=lambda f: f.__name__)
@pytest.mark.parametrize("shape", [(61, 83), (64, 80), (1, 30), (40, 1), (5, 3)])
def test_turning_the_input_turns_the_output(
    method: str, turn: Callable[[NDArray[np.float32]], NDArray[np.float32]], shape: tuple[int, int]
) -> None:
    image = speckled(*shape)
    np.testing.assert_allclose(despeckle(turn(image), method), turn(despeckle(image, method)), atol=2e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_constant_image_stays_constant(method: str, level: int) -> None:
    image = np.full((30, 41), level, dtype=np.uint8)
    np.testing.assert_allclose(despeckle(image, method), level / 255, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("explicit_step", [None, 0.2])
def test_mean_intensity_is_conserved(method: str, explicit_step: float | None) -> None:
    image = speckled(90, 70)
    for dynamic_range in (50.0, None):
        result = despeckle(image, method, dynamic_range=dynamic_range, explicit_step=explicit_step, time=6)
        before, after = (np.exp(x * RATE) if dynamic_range else x for x in (image.astype(np.float64), result))
        assert after.mean() == pytest.approx(before.mean(), rel=2e-5)


@pytest.mark.parametrize("method", METHODS)
def test_one_bright_pixel_on_black(method: str) -> None:
    image = np.zeros((21, 21), dtype=np.uint8)
    image[10, 10] = 255
    result = despeckle(image, method)
    assert np.isfinite(result).all()
    # Beside a step of 50 dB in one pixel the oriented filter's directions hang on the last bit.
    if method != "osrad":
        np.testing.assert_allclose(result, result.T, atol=1e-5)
        np.testing.assert_allclose(result, result[::-1, ::-1], atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_huge_frame(method: str) -> None:
    image = np.tile(speckled(128, 128), (16, 16))
    result = despeckle(image, method, time=1, cycles=1)
    assert result.shape == (2048, 2048)
    assert image.min() <= result.min() <= result.max() <= image.max()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1, 200_000), (3, 70_000)])
def test_bands_of_one_long_row(method: str, shape: tuple[int, int]) -> None:
    image = np.tile(speckled(shape[0], 100), shape[1] // 100)
    assert count_bands(*shape, 3) == shape[0]
    together, alone = (despeckle(image, method, time=2, threads=threads) for threads in (3, 1))
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("method", METHODS)
def test_speckle_falls_and_edges_stay(method: str) -> None:
    image = speckled(120, 150)
    result = despeckle(image, method)
    inside, outside = (slice(50, 70), slice(40, 60)), (slice(95, 115), slice(20, 130))
    assert result[inside].std() < 0.7 * image[inside].std()
    assert result[outside].mean() - result[inside].mean() > 0.6 * (image[outside].mean() - image[inside].mean())


def test_real_frames_stay_in_range(data_root) -> None:  # type: ignore[no-untyped-def]
    import cv2

    paths = sorted((data_root / "kaggle-nerve" / "train").glob("*_1.png"))[:3]
    if not paths:
        pytest.skip("no Kaggle frames present")
    for path in paths:
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        for method in METHODS:
            result = despeckle(image, method)
            assert image.min() / 255 - 1e-6 <= result.min() <= result.max() <= image.max() / 255 + 1e-6


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "dpat"}, "Did you mean 'dpad'"),
        ({"method": "dpad", "q0": 1.0}, "no option 'q0'"),
        ({"time": 0}, "time must be positive"),
        ({"cycles": 0}, "at least one cycle"),
        ({"explicit_step": 0.3}, r"\(0, 0.25\]"),
        ({"method": "osrad", "explicit_step": 0.25}, r"\(0, 0.2\]"),
        ({"dynamic_range": -1}, "dynamic range"),
        ({"method": "srad", "q0": 0}, "q0 > 0"),
        ({"method": "osrad", "scale": 0}, "scale"),
        ({"method": "perona-malik", "kappa": 0}, "kappa > 0"),
    ],
)
def test_wrong_options_are_explained(options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        despeckle(speckled(8, 8), **options)  # type: ignore[arg-type]


@given(time=st.floats(0.01, 300), limit=st.sampled_from([0.2, 0.25]))
def test_fed_steps_sum_to_their_time(time: float, limit: float) -> None:
    steps = fed_steps(time, limit)
    assert sum(steps) == pytest.approx(time)
    assert min(steps) > 0
    # A cycle of n steps reaches n² / 3 times as far as one explicit step.
    assert len(steps) ** 2 / 3 * limit <= time * 1.001 + limit * (2 * len(steps) + 1)


@pytest.mark.parametrize("time", [1, 30, 300])
def test_no_step_of_a_cycle_raises_a_wave_much(time: float) -> None:
    """A wave of eigenvalue -k grows by 1 - tau k in a step: in an unlucky order float32 would overflow on the way."""
    waves = np.linspace(0, 8, 1001)
    factors = 1 - np.outer(fed_steps(time), waves)
    for way in (factors, factors[::-1]):
        growth = np.abs(np.cumprod(way, axis=0))
        assert growth.max() < 1000
        assert growth[-1].max() < 1 + 1e-9


def test_one_long_cycle_is_what_its_linear_steps_make() -> None:
    image = speckled(40, 50)
    result = despeckle(image, "dpad", time=300, cycles=1)
    u = np.exp(image.astype(np.float64) * RATE)
    c = dpad_coefficient(u, 0)
    for tau in fed_steps(300):
        u = u + tau * divergence(u, c)
    assert np.abs(result - np.log(u) / RATE).max() < 1e-3


@pytest.mark.parametrize("explicit_step", [None, 0.2])
def test_schedule_covers_the_time(explicit_step: float | None) -> None:
    cycles = schedule(10, 8, explicit_step)
    assert sum(float(cycle.taus.sum()) for cycle in cycles) == pytest.approx(10, rel=1e-5)
    assert [cycle.start for cycle in cycles] == sorted(cycle.start for cycle in cycles)
    assert cycles[0].start == 0
