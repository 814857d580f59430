"""Random views of a batch: mirrored, moved, and seen at another gain. Parameters are drawn apart from their use."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from edgefusion.config import TrainConfig

_ROTATION = math.radians(12)
_SCALE = 0.12
_SHIFT = 0.08
_GAMMA = 0.25
_GAIN = 0.15


@dataclass(frozen=True)
class Views:
    """What is done to each frame of a batch of B."""

    affine: Tensor
    """B×2×3, output to input coordinates in [-1, 1], as ``torch.nn.functional.affine_grid`` takes it."""
    gamma: Tensor
    """B, exponent of the grey levels."""
    gain: Tensor
    """B, factor on the grey levels."""

    def to(self, device: torch.device) -> Views:
        """The same views on another device."""
        return Views(self.affine.to(device), self.gamma.to(device), self.gain.to(device))


def draw_views(batch: int, aspect: float, config: TrainConfig, generator: Generator) -> Views:
    """Draw one view a frame.

    Args:
        batch: Number of frames.
        aspect: Width over height, so that a rotation stays a rotation.
        config: Says which kinds of change are wanted.
        generator: Source of chance.
    """

    def uniform(spread: float) -> Tensor:
        return (torch.rand(batch, generator=generator) * 2 - 1) * spread

    angle, scale, dx, dy = uniform(_ROTATION), 1 + uniform(_SCALE), uniform(_SHIFT), uniform(_SHIFT)
    mirror = torch.where(torch.rand(batch, generator=generator) < 0.5, -1.0, 1.0)
    gamma, gain = torch.exp(uniform(_GAMMA)), 1 + uniform(_GAIN)
    if not config.affine:
        angle, scale, dx, dy = (value * 0 for value in (angle, scale, dx, dy))
        scale = scale + 1
    if not config.flip:
        mirror = torch.ones_like(mirror)
    if not config.intensity:
        gamma, gain = torch.ones_like(gamma), torch.ones_like(gain)
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    rows = [torch.stack([mirror * cos, -sin / aspect, dx]), torch.stack([mirror * sin * aspect, cos, dy])]
    return Views(torch.stack(rows).permute(2, 0, 1), gamma, gain)


def apply_views(stack: Tensor, target: Tensor, views: Views) -> tuple[Tensor, Tensor]:
    """Apply the views to B×C×H×W channels and B×L×H×W targets alike; both stay in [0, 1].

    Grey levels change by the same gain and gamma in all channels; the target only moves.
    """
    both = torch.cat([stack, target], 1)
    grid = F.affine_grid(views.affine, list(both.shape), align_corners=False)
    moved = F.grid_sample(both, grid, padding_mode="zeros", align_corners=False)
    channels = stack.shape[1]
    gamma, gain = views.gamma.view(-1, 1, 1, 1), views.gain.view(-1, 1, 1, 1)
    seen = (moved[:, :channels].clamp(0, 1).pow(gamma) * gain).clamp(0, 1)
    return seen, moved[:, channels:].clamp(0, 1)
