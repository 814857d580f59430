"""Speckle and haze, laid on a batch at random: another scanner's grain, another patient's fat."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from edgefusion.training.ranks import share

_SPECKLE = 0.25
_HAZE = 0.3
_GRAIN = (0.25, 1.0)
_HAZE_FIELD = (3, 4)


def speckle_and_haze(stack: Tensor, generator: Generator, frames: int | None = None) -> Tensor:
    """Lay speckle of one random grain, and haze, each on half of the frames.

    Log-compressed speckle is nearly additive in the logarithm of the grey level, so the grey levels are multiplied by
    the exponential of a Gaussian field. Haze lifts them towards white, smoothly over the frame, and takes
    contrast away.

    Args:
        stack: B×C×H×W channels in [0, 1]; all channels of a frame change alike.
        generator: Source of chance.
        frames: Frames of the batch that this rank has a share of, so that all ranks draw for all; by default B.

    Returns:
        B×C×H×W in [0, 1].
    """
    height, width = stack.shape[2:]
    batch = frames or len(stack)
    mine = share(batch) if frames else slice(batch)
    grain = _GRAIN[0] + (_GRAIN[1] - _GRAIN[0]) * float(torch.rand(1, generator=generator))
    field = torch.randn(batch, 1, round(height * grain), round(width * grain), generator=generator)
    strength, haze = _on_half(batch, _SPECKLE, generator), _on_half(batch, _HAZE, generator)
    veil = haze * torch.rand(batch, 1, *_HAZE_FIELD, generator=generator)

    def over_the_frame(values: Tensor) -> Tensor:
        return F.interpolate(values[mine].to(stack.device), (height, width), mode="bilinear", align_corners=True)

    seen = stack * over_the_frame(strength * field).exp()
    veil = over_the_frame(veil)
    return (seen * (1 - veil) + veil).clamp(0, 1)


def _on_half(batch: int, most: float, generator: Generator) -> Tensor:
    """B×1×1×1: a strength up to ``most`` where the lot fell on a frame, else 0."""
    drawn, lot = torch.rand(2, batch, 1, 1, 1, generator=generator).unbind()
    return most * drawn * (lot < 0.5).float()
