"""SRAD and DPAD on torch tensors, for GPUs and for use inside a network. Import it on demand: it imports torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from edgefusion.channels.diffusion import DPAD_CYCLES, DYNAMIC_RANGE, SRAD_GRADING, speckle_scale_squared, srad_cycles
from edgefusion.channels.evolution import NOISE_OVER_MEDIAN
from edgefusion.channels.fed import GRADING, schedule
from edgefusion.channels.kernels import FLATTEST, LEAST_PRECISION, TINY, WINDOW
from edgefusion.errors import UsageError

_FLATTEST, _TINY = float(FLATTEST), float(TINY)


def despeckle_tensor(
    images: Tensor,
    method: str = "srad",
    *,
    time: float = 10.0,
    cycles: int | None = None,
    q0: float = 1.0,
    rho: float = 1 / 6,
    dynamic_range: float = DYNAMIC_RANGE,
) -> Tensor:
    """The same fast explicit diffusion as ``edgefusion.despeckle``, differentiable, on the tensor's own device.

    Args:
        images: B×1×H×W float32 in [0, 1]; the frames of a batch do not influence each other.
        method: ``"srad"`` or ``"dpad"``.
        time: Diffusion time, px².
        cycles: FED cycles, in each of which the coefficient is frozen; None takes the compiled filter's default.
        q0: SRAD's coefficient of variation at the start.
        rho: How fast it falls, see ``edgefusion.channels.diffusion.srad``.
        dynamic_range: Decibels undone by log decompression.

    Returns:
        B×1×H×W float32, each frame within its own range; equal to the compiled filters within 1e-4.

    Raises:
        UsageError: For another method or another shape.
    """
    if images.ndim != 4 or images.shape[1] != 1:
        raise UsageError(f"Tensors to despeckle are B×1×H×W, but this one is {tuple(images.shape)}.")
    if method not in ("srad", "dpad"):
        raise UsageError(f"No tensor version of the filter '{method}'.", "There are 'srad' and 'dpad'.")
    rate = dynamic_range * math.log(10) / 20
    u = torch.exp(images * rate)
    low, high = (torch.amin(u, (2, 3), keepdim=True), torch.amax(u, (2, 3), keepdim=True))
    srad = method == "srad"
    if cycles is None:
        cycles = srad_cycles(time) if srad else DPAD_CYCLES
    for cycle in schedule(time, cycles, None, grading=SRAD_GRADING if srad else GRADING):
        c = _srad_coefficient(u, speckle_scale_squared(cycle, q0, rho)) if srad else _dpad_coefficient(u)
        across, down = (c[..., 1:] + c[..., :-1]) / 2, (c[..., 1:, :] + c[..., :-1, :]) / 2
        for tau in cycle.taus.tolist():
            flow_x, flow_y = across * u.diff(dim=3), down * u.diff(dim=2)
            u = u + tau * (
                pad(flow_x, (0, 1)) - pad(flow_x, (1, 0)) + pad(flow_y, (0, 0, 0, 1)) - pad(flow_y, (0, 0, 1, 0))
            )
    return torch.log(torch.minimum(torch.maximum(u, low), high)) / rate


def _srad_coefficient(u: Tensor, q0_squared: float) -> Tensor:
    bordered = pad(u, (1, 1, 1, 1), mode="replicate")
    sides = (bordered[..., :-2, 1:-1], bordered[..., 2:, 1:-1], bordered[..., 1:-1, :-2], bordered[..., 1:-1, 2:])
    differences = torch.stack([side - u for side in sides])
    s1, s2 = differences.sum(0), differences.square().sum(0)
    mean_squared = (u + s1 / 4).square() + _TINY
    variation = s2 / 2 - s1.square() / 16
    return ((q0_squared + q0_squared**2) * mean_squared / (variation + q0_squared**2 * mean_squared)).clamp(max=1)


def _dpad_coefficient(u: Tensor) -> Tensor:
    reach = WINDOW // 2
    bordered = pad(u, (reach, reach, reach, reach), mode="replicate")
    mean_squared = avg_pool2d(bordered, WINDOW, stride=1).square()
    variance = avg_pool2d(bordered.square(), WINDOW, stride=1) - mean_squared
    precision = mean_squared / torch.maximum(variance, _FLATTEST * mean_squared + _TINY)
    precision = precision.clamp(min=LEAST_PRECISION)
    # By sorting, because ONNX has no median.
    variations = (1 / precision).flatten(1).sort(1).values
    q0_squared = NOISE_OVER_MEDIAN * variations[:, (variations.shape[1] - 1) // 2][:, None, None, None]
    return (q0_squared / (1 + q0_squared) * (1 + precision)).clamp(max=1)
