"""Speckle-reducing diffusion: SRAD, DPAD, oriented SRAD and regularised Perona-Malik.

All four repeat u <- u + tau div(c grad u) with a coefficient c in [0, 1] that falls at edges. They differ in c.
``docs/method.md`` has the equations, the defaults and their sources.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefusion.channels.bands import cores
from edgefusion.channels.evolution import Evolution, Plane
from edgefusion.channels.fed import Cycle, check_time
from edgefusion.channels.smoothing import gaussian
from edgefusion.channels.tensor_kernels import tensor_rows, tensor_step_rows
from edgefusion.errors import UsageError

DYNAMIC_RANGE = 50.0
"""Decibels between black and white that log decompression assumes."""
DPAD_CYCLES = 8
LEAST_Q0_SQUARED = 1e-12
"""Below this SRAD stands still anyway, and its square is no longer a normal float32."""
SRAD_GRADING = 2.0
"""SRAD's speckle scale falls from the start, too: its FED cycles begin shorter than other filters'."""
TENSOR_STEP = 0.2
"""Largest stable explicit step of the tensor's stencil, px²; its mixed terms cost a little of the usual 0.25."""


def srad(
    image: NDArray[Any],
    *,
    time: float = 10.0,
    cycles: int | None = None,
    q0: float = 1.0,
    rho: float = 1 / 6,
    explicit_step: float | None = None,
    dynamic_range: float | None = DYNAMIC_RANGE,
    threads: int | None = None,
) -> Plane:
    """Speckle-reducing anisotropic diffusion.

    Source: Yu, Acton, "Speckle reducing anisotropic diffusion", IEEE Trans. Image Processing 11(11), 2002.

    Args:
        image: H×W, uint8, uint16, or float in [0, 1].
        time: Diffusion time T in px²; Yu and Acton's time is 4 T.
        cycles: FED cycles, in each of which the coefficient is frozen; None takes ``srad_cycles(time)``.
        q0: Speckle's coefficient of variation at the start: 1 for fully developed speckle in intensity.
        rho: How fast the speckle scale falls: q0(t) = q0 exp(-rho t) in Yu and Acton's time t = 4 T.
        explicit_step: Take explicit steps of about this many px², each with a fresh coefficient, instead of FED.
        dynamic_range: Decibels undone by log decompression; None filters the grey levels themselves.
        threads: Threads for this frame; None takes all cores.

    Returns:
        H×W float32, within the range of ``image``.

    Raises:
        UsageError: If an option is outside its range.
    """
    if not (q0 > 0 and rho >= 0):
        raise UsageError(f"SRAD needs q0 > 0 and rho >= 0, not {q0} and {rho}.")
    count = srad_cycles(time) if cycles is None else cycles
    u = Evolution(image, 2, time, count, explicit_step, dynamic_range, threads, grading=SRAD_GRADING)
    u.run_srad([speckle_scale_squared(cycle, q0, rho) for cycle in u.cycles])
    return u.result()


def srad_cycles(time: float) -> int:
    """FED cycles with which SRAD stays within .001 (mean) and .01 (any pixel) of tiny steps, on simulated speckle."""
    check_time(time)
    return max(12, math.ceil(5 * math.sqrt(time)))


def speckle_scale_squared(cycle: Cycle, q0: float, rho: float) -> float:
    """Mean over a cycle of SRAD's q0² exp(-8 rho t), t in px²."""
    decay = 8 * rho * cycle.span
    mean = -math.expm1(-decay) / decay if decay > 0 else 1.0
    return max(q0**2 * math.exp(-8 * rho * cycle.start) * mean, LEAST_Q0_SQUARED)


def dpad(
    image: NDArray[Any],
    *,
    time: float = 10.0,
    cycles: int = DPAD_CYCLES,
    explicit_step: float | None = None,
    dynamic_range: float | None = DYNAMIC_RANGE,
    threads: int | None = None,
) -> Plane:
    """Detail-preserving anisotropic diffusion: SRAD with window statistics and a noise level taken from the image.

    Source: Aja-Fernández, Alberola-López, "On the estimation of the coefficient of variation for anisotropic
    diffusion speckle filtering", IEEE Trans. Image Processing 15(9), 2006.

    Args:
        image: H×W, uint8, uint16, or float in [0, 1].
        time: Diffusion time in px².
        cycles: FED cycles, in each of which the coefficient is frozen.
        explicit_step: Take explicit steps of about this many px², each with a fresh coefficient, instead of FED.
        dynamic_range: Decibels undone by log decompression; None filters the grey levels themselves.
        threads: Threads for this frame; None takes all cores.

    Returns:
        H×W float32, within the range of ``image``.

    Raises:
        UsageError: If an option is outside its range.
    """
    u = Evolution(image, 3, time, cycles, explicit_step, dynamic_range, threads)
    field = u.plane(2)
    for cycle in u.cycles:
        gain = u.precision(field)
        u.run_field(cycle, field, gain)
    return u.result()


def osrad(
    image: NDArray[Any],
    *,
    time: float = 10.0,
    cycles: int = 6,
    scale: float = 4.0,
    explicit_step: float | None = None,
    dynamic_range: float | None = DYNAMIC_RANGE,
    threads: int | None = None,
) -> Plane:
    """Oriented SRAD: DPAD's coefficient across an edge, free diffusion along it.

    Source: Krissian, Westin, Kikinis, Vosburgh, "Oriented speckle reducing anisotropic diffusion", IEEE Trans. Image
    Processing 16(5), 2007.

    Args:
        image: H×W, uint8, uint16, or float in [0, 1].
        time: Diffusion time in px².
        cycles: FED cycles, in each of which the tensor is frozen.
        scale: Standard deviation, px, of the Gaussian that smooths the structure tensor.
        explicit_step: Take explicit steps of about this many px², each with a fresh tensor, instead of FED.
        dynamic_range: Decibels undone by log decompression; None filters the grey levels themselves.
        threads: Threads for this frame; None takes all cores.

    Returns:
        H×W float32, within the range of ``image``.

    Raises:
        UsageError: If an option is outside its range.
    """
    if not 0 < scale < math.inf:
        raise UsageError(f"The scale of the structure tensor must be positive, not {scale}.")
    u = Evolution(image, 6, time, cycles, explicit_step, dynamic_range, threads, limit=TENSOR_STEP)
    field, tensor = u.plane(2), (u.plane(3), u.plane(4), u.plane(5))
    for cycle in u.cycles:
        gain = u.precision(field)
        structure = _structure_tensor(u.grey(), scale)
        u.over_bands(partial(_fill_tensor, u, field, tensor, structure, gain))
        for tau in cycle.taus:
            u.over_bands(partial(_tensor_step, u, tensor, tau))
            u.swap()
    return u.result()


def _fill_tensor(
    u: Evolution,
    field: int,
    tensor: tuple[int, int, int],
    structure: tuple[Plane, Plane, Plane],
    gain: np.float32,
    _: int,
    first: int,
    last: int,
) -> None:
    tensor_rows(u.w, field, tensor, u.columns, first, last, structure, gain)


def _tensor_step(u: Evolution, tensor: tuple[int, int, int], tau: np.float32, _: int, first: int, last: int) -> None:
    tensor_step_rows(u.w, u.u, u.spare, tensor, u.rows, u.columns, first, last, tau)


def _structure_tensor(grey: Plane, scale: float) -> tuple[Plane, Plane, Plane]:
    """Products xx, xy and yy of the gradient, smoothed; at half size, where they cost a quarter and serve as well."""
    rows, columns = grey.shape
    half = cv2.resize(grey, ((columns + 1) // 2, (rows + 1) // 2), interpolation=cv2.INTER_AREA)
    dx = cv2.Scharr(half, cv2.CV_32F, 1, 0, scale=1 / 32, borderType=cv2.BORDER_REPLICATE)
    dy = cv2.Scharr(half, cv2.CV_32F, 0, 1, scale=1 / 32, borderType=cv2.BORDER_REPLICATE)
    xx, xy, yy = (
        np.asarray(cv2.resize(gaussian(product, scale / 2), (columns, rows), interpolation=cv2.INTER_LINEAR))
        for product in (dx * dx, dx * dy, dy * dy)
    )
    return xx, xy, yy


def perona_malik(
    image: NDArray[Any],
    *,
    time: float = 10.0,
    cycles: int = 8,
    kappa: float = 0.04,
    sigma: float = 1.0,
    explicit_step: float | None = None,
    dynamic_range: float | None = None,
    threads: int | None = None,
) -> Plane:
    """Perona-Malik diffusion with the coefficient taken from a smoothed gradient.

    Sources: Perona, Malik, "Scale-space and edge detection using anisotropic diffusion", IEEE Trans. Pattern
    Analysis 12(7), 1990; Catté, Lions, Morel, Coll, SIAM J. Numerical Analysis 29(1), 1992, for the smoothing.

    Args:
        image: H×W, uint8, uint16, or float in [0, 1].
        time: Diffusion time in px².
        cycles: FED cycles, in each of which the coefficient is frozen.
        kappa: Gradient, in grey levels a pixel, that counts as an edge.
        sigma: Standard deviation, px, of the Gaussian before the gradient.
        explicit_step: Take explicit steps of about this many px², each with a fresh coefficient, instead of FED.
        dynamic_range: Decibels undone by log decompression; None, the default, filters the grey levels themselves,
            in which speckle is nearly additive, as this filter assumes.
        threads: Threads for this frame; None takes all cores.

    Returns:
        H×W float32, within the range of ``image``.

    Raises:
        UsageError: If an option is outside its range.
    """
    if not (0 < kappa < math.inf and 0 < sigma < math.inf):
        raise UsageError(f"Perona-Malik needs kappa > 0 and sigma > 0, not {kappa} and {sigma}.")
    u = Evolution(image, 3, time, cycles, explicit_step, dynamic_range, threads)
    field = u.plane(2)
    one = np.float32(1)
    for cycle in u.cycles:
        smooth = gaussian(u.view(u.u), sigma)
        dx = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE)
        dy = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE)
        coefficient = u.view(field)
        np.exp((dx * dx + dy * dy) * np.float32(-1 / kappa**2), out=coefficient)
        coefficient -= one
        u.run_field(cycle, field, one)
    return u.result()


METHODS = {"srad": srad, "dpad": dpad, "osrad": osrad, "perona-malik": perona_malik}
"""The filters by name."""


def despeckle(image: NDArray[Any], method: str = "dpad", **options: Any) -> Plane:
    """Reduce speckle and keep edges.

    Args:
        image: H×W or H×W×3, uint8, uint16, or float in [0, 1].
        method: ``"srad"`` (fast), ``"dpad"``, ``"osrad"`` (best on phantoms, slowest) or ``"perona-malik"``.
        **options: Of the function of that name in this module.

    Returns:
        H×W float32, within the range of ``image``.

    Raises:
        UsageError: For an unknown method or option, or one outside its range.
    """
    if method not in METHODS:
        near = difflib.get_close_matches(method, METHODS, n=1, cutoff=0.0)[0]
        raise UsageError(f"Unknown filter '{method}'.", f"Did you mean '{near}'? Known: {', '.join(METHODS)}.")
    function = METHODS[method]
    known = inspect.signature(function).parameters
    for name in options:
        if name not in known or name == "image":
            raise UsageError(f"The filter '{method}' has no option '{name}'.", f"It has: {', '.join(list(known)[1:])}.")
    return function(image, **options)


def despeckle_batch(images: Iterable[NDArray[Any]], method: str = "dpad", **options: Any) -> list[Plane]:
    """Filter many frames, which may differ in size, one in each thread.

    Args:
        images: Frames as for ``despeckle``.
        method: As for ``despeckle``.
        **options: As for ``despeckle``; ``threads`` is the number of frames at work at once.

    Returns:
        Filtered frames, in order.
    """
    threads = options.pop("threads", None)
    with ThreadPoolExecutor(cores() if threads is None else threads) as pool:
        return list(pool.map(lambda image: despeckle(image, method, threads=1, **options), images))
