"""Random views of a batch: mirrored, moved, at another gain, in shadow. Parameters are drawn apart from their use."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from edgefusion.config import TrainConfig

_ROTATION = math.radians(16)
_SCALE = 0.17
_SHIFT = 0.11
_GAMMA = 0.3
_GAIN = 0.15
_FIELD = (3, 4)
_FIELD_GAIN = 0.25
_SHADOWED = 0.2


@dataclass(frozen=True)
class Views:
    """What is done to each frame of a batch of B."""

    affine: Tensor
    """B×2×3, output to input coordinates in [-1, 1], as ``torch.nn.functional.affine_grid`` takes it."""
    gamma: Tensor
    """B, exponent of the grey levels."""
    gain: Tensor
    """B, factor on the grey levels."""
    field: Tensor
    """B×1×3×4, logarithm of a gain that changes smoothly over the frame: a time-gain curve that is off, a probe that
    touches the skin unevenly."""
    shadow: Tensor
    """B×4: column in the middle of an acoustic shadow, its half width, the row where it begins (shares of the frame)
    and how much light it takes away, 0 for none."""

    def to(self, device: torch.device) -> Views:
        """The same views on another device."""
        return Views(*(getattr(self, field.name).to(device) for field in fields(self)))

    def of(self, frames: slice) -> Views:
        """The views of some frames of the batch."""
        return Views(*(getattr(self, field.name)[frames] for field in fields(self)))


def draw_views(batch: int, aspect: float, config: TrainConfig, generator: Generator) -> Views:
    """Draw one view a frame.

    Args:
        batch: Number of frames.
        aspect: Width over height, so that a rotation stays a rotation.
        config: Says which kinds of change are wanted.
        generator: Source of chance.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(batch, *shape, generator=generator)

    angle, dx, dy = uniform(-_ROTATION, _ROTATION), uniform(-_SHIFT, _SHIFT), uniform(-_SHIFT, _SHIFT)
    across, down = uniform(1 - _SCALE, 1 + _SCALE), uniform(1 - _SCALE, 1 + _SCALE)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    gamma, gain = torch.exp(uniform(-_GAMMA, _GAMMA)), uniform(1 - _GAIN, 1 + _GAIN)
    field = uniform(-_FIELD_GAIN, _FIELD_GAIN, 1, *_FIELD)
    darkness = torch.where(uniform(0, 1) < _SHADOWED, uniform(0.4, 0.9), 0.0)
    shadow = torch.stack([uniform(0, 1), uniform(0.03, 0.11), uniform(0, 0.6), darkness], 1)
    if not config.affine:
        angle, dx, dy = angle * 0, dx * 0, dy * 0
        across, down = torch.ones(batch), torch.ones(batch)
    if not config.flip:
        mirror = torch.ones(batch)
    if not config.intensity:
        gamma, gain, field, shadow = torch.ones(batch), torch.ones(batch), field * 0, shadow * 0
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = [
        torch.stack([mirror * across * cos, -across * sin / aspect, dx]),
        torch.stack([mirror * down * sin * aspect, down * cos, dy]),
    ]
    return Views(torch.stack(rows).permute(2, 0, 1), gamma, gain, field, shadow)


def apply_views(stack: Tensor, target: Tensor, views: Views) -> tuple[Tensor, Tensor]:
    """Apply the views to B×C×H×W channels and B×L×H×W targets alike; both stay in [0, 1].

    Grey levels change alike in all channels; the target only moves.
    """
    both = torch.cat([stack, target], 1)
    grid = F.affine_grid(views.affine, list(both.shape), align_corners=False)
    moved = F.grid_sample(both, grid, padding_mode="zeros", align_corners=False)
    channels = stack.shape[1]
    gamma, gain = views.gamma.view(-1, 1, 1, 1), views.gain.view(-1, 1, 1, 1)
    light = gain * _gain_field(views.field, stack) * (1 - _shadows(views.shadow, stack))
    seen = (moved[:, :channels].clamp(0, 1).pow(gamma) * light).clamp(0, 1)
    return seen, moved[:, channels:].clamp(0, 1)


def _gain_field(field: Tensor, like: Tensor) -> Tensor:
    """B×1×H×W factors."""
    return F.interpolate(field, size=like.shape[2:], mode="bicubic", align_corners=True).exp()


def _shadows(shadow: Tensor, like: Tensor) -> Tensor:
    """B×1×H×W share of the light that is lost: a Gaussian across the beam, from some depth down to the bottom."""
    height, width = like.shape[2:]
    column, half_width, begin, darkness = shadow.view(-1, 4, 1, 1).unbind(1)
    x = (torch.arange(width, device=like.device) + 0.5) / width
    y = (torch.arange(height, device=like.device)[:, None] + 0.5) / height
    across = torch.exp(-(((x - column) / half_width.clamp(min=1e-6)) ** 2))
    return (darkness * across * (y > begin))[:, None]
