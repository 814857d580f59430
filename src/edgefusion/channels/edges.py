"""Edge maps of a frame. ``docs/method.md`` has the equations, the defaults and their sources."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from edgefusion.arrays import as_unit
from edgefusion.channels.bands import count_bands, run_bands
from edgefusion.channels.diffusion import DYNAMIC_RANGE, despeckle
from edgefusion.channels.edge_kernels import (
    exponential_down,
    exponential_up,
    scaled_mean_rows,
    sobel_rows,
    variation_rows,
)
from edgefusion.channels.ranks import quantile
from edgefusion.channels.smoothing import Plane, gaussian
from edgefusion.errors import UsageError

SHARE_BELOW_ONE = 0.99
"""A map is divided by this quantile of its pixels and cut at 1, so that a few glints do not set its scale."""
FLAT = 1e-4
"""A quantile below this means that there is no edge; it is not scaled up to one."""
COARSE_SIGMA = 2.0
"""Standard deviation, px, of the Gaussian before the coarse one of the two gradients that are fused."""
DENOISER = {"fused": "dpad", "sobel": "dpad", "icov": "srad", "roewa": None, "feature-asymmetry": None, "canny": "dpad"}
"""The edge maps by name, each with the filter whose result it wants, if any."""

_ROEWA_DECAY = 0.75
_WAVELENGTHS = (8.0, 16.0, 32.0)
_BANDWIDTH = 0.55
_CANNY_STRONG, _CANNY_WEAK = 0.9, 0.4


def edge_map(
    image: NDArray[Any], denoised: Plane | None = None, method: str = "fused", *, threads: int | None = None
) -> Plane:
    """How much each pixel looks like an edge.

    Args:
        image: H×W or H×W×3, uint8, uint16, or float in [0, 1].
        denoised: The same frame despeckled, H×W in [0, 1]; None filters it here, by ``DENOISER[method]``.
        method: ``"fused"`` (mean of Sobel on the despeckled frame and of Sobel on the frame smoothed by 2 px),
            ``"sobel"`` (of the despeckled frame), ``"icov"`` (SRAD's coefficient of variation of the despeckled
            frame), ``"roewa"`` (ratio of exponentially weighted averages), ``"feature-asymmetry"`` (of the monogenic
            signal) or ``"canny"`` (of the despeckled frame; 0 or 1).
        threads: Threads for this frame; None takes all cores.

    Returns:
        H×W float32 in [0, 1].

    Raises:
        UsageError: For an unknown method, or where ``denoised`` has another size.
    """
    if method not in DENOISER:
        near = difflib.get_close_matches(method, DENOISER, n=1, cutoff=0.0)[0]
        raise UsageError(f"Unknown edge map '{method}'.", f"Did you mean '{near}'? Known: {', '.join(DENOISER)}.")
    grey = as_unit(image)
    bands = count_bands(grey.shape[0], grey.shape[1], threads)
    denoiser = DENOISER[method]
    if denoiser is None:
        return _roewa(grey, bands) if method == "roewa" else _feature_asymmetry(grey)
    smooth = despeckle(grey, denoiser, threads=threads) if denoised is None else as_unit(denoised)
    if smooth.shape != grey.shape:
        raise UsageError(f"The despeckled frame has shape {smooth.shape}, the frame {grey.shape}.")
    match method:
        case "fused":
            return _fused(grey, smooth, bands)
        case "sobel":
            return _normalised(_sobel(smooth, bands), bands)
        case "icov":
            return _icov(smooth, bands)
        case _:
            return _canny(smooth)


def _bordered(image: Plane, width: int) -> Plane:
    return np.asarray(cv2.copyMakeBorder(image, width, width, width, width, cv2.BORDER_REPLICATE), dtype=np.float32)


def _by_bands(work: Callable[[int, int], None], rows: int, bands: int) -> None:
    run_bands(lambda _, first, last: work(first, last), rows, bands)


def _scale(edges: Plane, bands: int) -> np.float32:
    return np.float32(1 / max(quantile(edges, SHARE_BELOW_ONE, bands), FLAT))


def _normalised(edges: Plane, bands: int) -> Plane:
    edges *= _scale(edges, bands)
    return np.minimum(edges, np.float32(1), out=edges)


def _sobel(image: Plane, bands: int) -> Plane:
    bordered, out = _bordered(image, 1), np.empty_like(image)
    _by_bands(lambda first, last: sobel_rows(bordered, first, last, out), len(image), bands)
    return out


def _fused(grey: Plane, denoised: Plane, bands: int) -> Plane:
    smooth = gaussian(grey, COARSE_SIGMA)
    fine, coarse = _sobel(denoised, bands), _sobel(smooth, bands)
    scale_fine, scale_coarse = _scale(fine, bands), _scale(coarse, bands)
    _by_bands(
        lambda first, last: scaled_mean_rows(fine, scale_fine, coarse, scale_coarse, first, last), len(grey), bands
    )
    return fine


def _intensity(grey: Plane) -> Plane:
    return np.asarray(np.exp(grey * np.float32(DYNAMIC_RANGE * math.log(10) / 20)), dtype=np.float32)


def _icov(denoised: Plane, bands: int) -> Plane:
    bordered, out = _bordered(_intensity(denoised), 1), np.empty_like(denoised)
    _by_bands(lambda first, last: variation_rows(bordered, first, last, out), len(out), bands)
    return _normalised(out, bands)


def _roewa(grey: Plane, bands: int) -> Plane:
    u = _intensity(grey)
    down = _log_ratio(np.ascontiguousarray(_symmetric_mean(np.ascontiguousarray(u.T)).T))
    across = _log_ratio(np.ascontiguousarray(_symmetric_mean(u).T)).T
    return _normalised(np.hypot(down, across).astype(np.float32), bands)


def _symmetric_mean(u: Plane) -> Plane:
    """Exponentially weighted mean down each column, over both sides."""
    decay = np.float32(_ROEWA_DECAY)
    above, below = np.empty_like(u), np.empty_like(u)
    exponential_down(u, decay, above)
    exponential_up(u, decay, below)
    # Both sides count the row itself, with weight 1 - decay.
    return np.asarray((above + below - (1 - decay) * u) / (1 + decay), dtype=np.float32)


def _log_ratio(u: Plane) -> Plane:
    """|ln| of the mean of the rows above over that of the rows below."""
    decay = np.float32(_ROEWA_DECAY)
    above, below = np.empty_like(u), np.empty_like(u)
    exponential_down(u, decay, above)
    exponential_up(u, decay, below)
    above, below = np.vstack([u[:1], above[:-1]]), np.vstack([below[1:], u[-1:]])
    return np.asarray(np.abs(np.log(above / below)), dtype=np.float32)


def _feature_asymmetry(grey: Plane) -> Plane:
    rows, columns = grey.shape
    reach = int(max(_WAVELENGTHS))
    size = tuple(fft.next_fast_len(length + 2 * reach, real=True) for length in (rows, columns))
    top, left = (size[0] - rows) // 2, (size[1] - columns) // 2
    bordered = cv2.copyMakeBorder(
        grey, top, size[0] - rows - top, left, size[1] - columns - left, cv2.BORDER_REFLECT
    )  # fmt: skip
    spectrum = fft.rfft2(bordered)
    bands, riesz = _monogenic_filters(size)
    strength, amplitudes = np.zeros_like(grey), np.full_like(grey, FLAT)
    for band in bands:
        filtered = spectrum * band
        even = fft.irfft2(filtered, s=size)[top : top + rows, left : left + columns]
        odd = fft.irfft2(filtered * riesz[0], s=size)[top : top + rows, left : left + columns] ** 2
        odd += fft.irfft2(filtered * riesz[1], s=size)[top : top + rows, left : left + columns] ** 2
        amplitude = np.sqrt(even * even + odd)
        # The geometric mean of the amplitude is what speckle alone would give.
        noise = np.exp(np.mean(np.log(amplitude + np.float32(FLAT))))
        strength += np.maximum(np.sqrt(odd) - np.abs(even) - noise, 0)
        amplitudes += amplitude
    return np.asarray(np.clip(strength / amplitudes, 0, 1), dtype=np.float32)


@lru_cache(maxsize=4)
def _monogenic_filters(
    size: tuple[int, int],
) -> tuple[list[Plane], tuple[NDArray[np.complex64], NDArray[np.complex64]]]:
    """Log-Gabor bands, and the Riesz transform along x and y, for ``rfft2`` of a frame of ``size``."""
    y = fft.fftfreq(size[0])[:, None]
    x = fft.rfftfreq(size[1])[None, :]
    radius = np.hypot(x, y)
    radius[0, 0] = 1
    bands = [
        np.exp(-(np.log(radius * wavelength) ** 2) / (2 * math.log(_BANDWIDTH) ** 2)).astype(np.float32)
        for wavelength in _WAVELENGTHS
    ]
    for band in bands:
        band[0, 0] = 0
    riesz = ((1j * x / radius).astype(np.complex64), (1j * y / radius).astype(np.complex64))
    return bands, riesz


def _canny(denoised: Plane) -> Plane:
    dx, dy = (
        np.round(cv2.Sobel(denoised, cv2.CV_32F, *order, scale=4096, borderType=cv2.BORDER_REPLICATE)).astype(np.int16)
        for order in ((1, 0), (0, 1))
    )
    strength = np.hypot(dx.astype(np.float32), dy.astype(np.float32))
    strong = max(quantile(strength, _CANNY_STRONG), 1.0)
    edges = cv2.Canny(dx, dy, _CANNY_WEAK * strong, strong, L2gradient=True)
    return np.asarray(edges > 0, dtype=np.float32)
