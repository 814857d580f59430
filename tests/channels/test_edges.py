"""Edge maps: right where the answer is known, and what must hold for any image."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from edgefusion.channels.diffusion import despeckle
from edgefusion.channels.edges import DENOISER, edge_map
from edgefusion.errors import UsageError


def step(rows: int = 80, columns: int = 100, noise: float = 0.02) -> NDArray[np.float32]:
    """Dark left half, bright right half."""
    image = np.full((rows, columns), 0.3, dtype=np.float32)
    image[:, columns // 2 :] = 0.7
    return np.clip(image + np.random.default_rng(0).normal(0, noise, image.shape), 0, 1).astype(np.float32)


@pytest.mark.parametrize("method", DENOISER)
def test_a_step_is_the_strongest_edge(method: str) -> None:
    edges = edge_map(step(), method=method)
    assert edges[:, 47:53].max(axis=1).min() > 0.5
    away = np.delete(edges, slice(35, 65), axis=1)
    assert away[10:-10, 10:-10].mean() < 0.25 * edges[10:-10, 47:53].max(axis=1).mean()


images = arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.sampled_from([0, 7, 128, 255]))


@pytest.mark.parametrize("method", DENOISER)
@settings(max_examples=12, deadline=None)
@given(image=images)
def test_any_image_gives_a_map_in_range(method: str, image: NDArray[np.uint8]) -> None:
    edges = edge_map(image, method=method)
    assert edges.shape == image.shape
    assert edges.dtype == np.float32
    assert edges.min() >= 0
    assert edges.max() <= 1


@pytest.mark.parametrize("method", DENOISER)
@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_constant_image_has_no_edges(method: str, level: int) -> None:
    assert edge_map(np.full((50, 70), level, dtype=np.uint8), method=method).max() < 1e-2


@pytest.mark.parametrize("method", [name for name in DENOISER if name != "canny"])
@pytest.mark.parametrize("turn", [np.fliplr, np.flipud, np.transpose], ids=lambda f: f.__name__)
def test_turning_the_input_turns_the_map(
    method: str, turn: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> None:
    image = step(61, 90, noise=0.1)
    # The monogenic signal's frame is extended to a size that is fast to transform, not always evenly.
    tolerance = 2e-2 if method == "feature-asymmetry" else 1e-3
    np.testing.assert_allclose(
        edge_map(turn(image), method=method), turn(edge_map(image, method=method)), atol=tolerance
    )


@pytest.mark.parametrize("method", DENOISER)
def test_huge_frame(method: str) -> None:
    image = np.tile(step(128, 128, noise=0.1), (16, 16))
    edges = edge_map(image, image, method)
    assert edges.shape == (2048, 2048)
    assert 0 <= edges.min() < edges.max() <= 1
    np.testing.assert_array_equal(edges, edge_map(image, image, method, threads=1))


def test_sobel_agrees_with_opencv() -> None:
    image = step(40, 60, noise=0.1)
    dx, dy = (cv2.Sobel(image, cv2.CV_64F, *order, borderType=cv2.BORDER_REPLICATE) for order in ((1, 0), (0, 1)))
    expected = np.hypot(dx, dy)
    edges = edge_map(image, image, "sobel")
    inside = edges < 1
    np.testing.assert_allclose(edges[inside] / edges[20, 30] * expected[20, 30], expected[inside], rtol=1e-4, atol=1e-5)


def test_fused_is_the_mean_of_its_parts() -> None:
    image = step(noise=0.1)
    denoised = despeckle(image, "dpad")
    smooth = cv2.GaussianBlur(image, (13, 13), 2.0, borderType=cv2.BORDER_REPLICATE)
    parts = [edge_map(image, part, "sobel") for part in (denoised, smooth)]
    np.testing.assert_allclose(edge_map(image, denoised), np.mean(parts, axis=0), atol=1e-5)


def test_roewa_agrees_with_slow_sums() -> None:
    image = step(24, 30, noise=0.1)
    u = np.exp(image.astype(np.float64) * 50 * np.log(10) / 20)
    decay = 0.75

    def side(v: NDArray[np.float64], r: int, direction: int) -> NDArray[np.float64]:
        far = 80
        rows = [v[min(max(r + direction * k, 0), len(v) - 1)] for k in range(far)]
        return sum((1 - decay) * decay**k * row for k, row in enumerate(rows))  # type: ignore[return-value]

    def ratio(v: NDArray[np.float64]) -> NDArray[np.float64]:
        smooth = np.array([side(v.T, r, -1) + side(v.T, r, 1) - (1 - decay) * v.T[r] for r in range(v.shape[1])]).T
        above = np.array([side(smooth, r - 1, -1) if r else smooth[0] for r in range(len(v))])
        below = np.array([side(smooth, r + 1, 1) if r < len(v) - 1 else smooth[-1] for r in range(len(v))])
        return np.abs(np.log(above / below))

    expected = np.hypot(ratio(u), ratio(u.T).T)
    edges = edge_map(image, method="roewa")
    inside = edges < 1
    scale = expected[inside].max() / edges[inside].max()
    np.testing.assert_allclose(edges[inside] * scale, expected[inside], atol=1e-4)


def test_wrong_use_is_explained() -> None:
    with pytest.raises(UsageError, match="Did you mean 'sobel'"):
        edge_map(step(), method="sobbel")
    with pytest.raises(UsageError, match="shape"):
        edge_map(step(), step(10, 10))
