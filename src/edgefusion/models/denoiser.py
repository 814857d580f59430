"""Learned diffusion: a small network that tells noise from a frame, its objective, and its one-step prediction.

The forward process is that of denoising diffusion (Ho et al. 2020) with the cosine schedule (Nichol, Dhariwal 2021),
both MONAI's; the network predicts the velocity (Salimans, Ho 2022). Frames are standardised first, so that noise of
the schedule's unit variance means the same in every frame. Sampling in many steps takes seconds a frame: only the
one-step prediction is meant for live use.

The network is made of the house's blocks. MONAI's ``DiffusionModelUNet`` needs einops even with all its attention
switched off, which no other part of this program does, and takes longer a multiply-add.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from edgefusion.errors import UsageError
from edgefusion.models.blocks import ResidualBlock

STEPS = 1000
"""Timesteps of the noise schedule, 0 to 999; at the last one nothing is left of the frame."""

FIRST = 80
"""Timestep from which training begins: noise of 0.14 standard deviations of the frame. The loss divides by the
variance of the noise, and less of it has nothing to teach."""

_FOLD = 2
_ANGLES = (1.0, 2.0, 4.0, 8.0)
_EMBEDDING = 64


class Denoiser(nn.Module):
    """A U-Net on folded frames (2×2 pixels become one with four values) that knows how noisy its input is.

    Args:
        widths: Features of each level, finest (half the frame's size) first; the size is halved between levels.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 96)) -> None:
        super().__init__()
        self.multiple = _FOLD * 2 ** (len(widths) - 1)
        self.stem = nn.Conv2d(_FOLD**2, widths[0], 3, padding=1)
        self.encoders = nn.ModuleList(ResidualBlock(widths[max(i - 1, 0)], w) for i, w in enumerate(widths))
        self.reducers = nn.ModuleList(nn.Conv2d(below, w, 1) for w, below in pairwise(widths))
        self.decoders = nn.ModuleList(ResidualBlock(w, w) for w in widths[:-1])
        self.time = nn.Sequential(nn.Linear(2 * len(_ANGLES), _EMBEDDING), nn.SiLU())
        self.shifts = nn.ModuleList(nn.Linear(_EMBEDDING, w) for w in widths)
        self.head = nn.Conv2d(widths[0], _FOLD**2, 3, padding=1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """Predict the velocity.

        Args:
            noisy: B×1×H×W, H and W multiples of ``multiple``.
            timesteps: B, int64 in [0, ``STEPS``).

        Returns:
            B×1×H×W.
        """
        angle = torch.acos(signal_shares().to(noisy.device)[timesteps].sqrt())[:, None] * torch.tensor(
            _ANGLES, device=noisy.device
        )
        time = self.time(torch.cat([angle.sin(), angle.cos()], 1))
        x = self.stem(F.pixel_unshuffle(noisy, _FOLD))
        encoded: list[Tensor] = []
        for encoder, shift in zip(self.encoders, self.shifts, strict=True):
            x = encoder(F.max_pool2d(x, 2) if encoded else x) + shift(time)[:, :, None, None]
            encoded.append(x)
        for level in reversed(range(len(self.decoders))):
            up = F.interpolate(self.reducers[level](x), scale_factor=2.0, mode="bilinear", align_corners=False)
            x = self.decoders[level](up + encoded[level])
        return F.pixel_shuffle(self.head(x), _FOLD)


@cache
def _scheduler() -> Any:
    # MONAI takes a second to import, and only those who diffuse need it.
    from monai.networks.schedulers import DDPMScheduler

    return DDPMScheduler(STEPS, schedule="cosine", prediction_type="v_prediction", clip_sample=False)


def signal_shares() -> Tensor:
    """The share of the frame in the variance at every timestep: ``STEPS`` float32 values that fall from 1 to 0."""
    shares: Tensor = _scheduler().alphas_cumprod
    return shares


def add_noise(frames: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Diffuse standardised frames B×1×H×W to their timesteps (B, int64): sqrt(a) frame + sqrt(1 - a) noise."""
    noisy: Tensor = _scheduler().add_noise(frames, noise, timesteps)
    return noisy


def predicted_frame(noisy: Tensor, velocity: Tensor, timesteps: Tensor) -> Tensor:
    """The frame that a predicted velocity amounts to: sqrt(a) noisy - sqrt(1 - a) velocity (Salimans, Ho 2022).

    Args:
        noisy: B×1×H×W frames at their timesteps.
        velocity: B×1×H×W.
        timesteps: B, int64.

    Returns:
        B×1×H×W, standardised.
    """
    share = signal_shares().to(noisy.device)[timesteps].view(-1, 1, 1, 1)
    return share.sqrt() * noisy - (1 - share).sqrt() * velocity


def draw_timesteps(batch: int, generator: Generator) -> Tensor:
    """``batch`` timesteps in [``FIRST``, ``STEPS``), int64; small ones, which serve one-step use, come more often."""
    return FIRST + ((STEPS - FIRST) * torch.rand(batch, generator=generator).square()).long()


def denoising_loss(network: nn.Module, source: Tensor, target: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of the predicted frame over the variance of the noise.

    Where ``target`` is ``source`` this is the squared error of the velocity, the usual objective, which needs no clean
    frames. Where ``target`` is the clean truth of a simulated frame, speckle is learnt as one more part of the noise.

    Args:
        network: Maps B×1×H×W noisy frames and B timesteps to velocities.
        source: B×1×H×W standardised frames.
        target: What the prediction is held against, by the grey scale of ``source``.
        timesteps: B, int64, at least ``FIRST``.
        noise: B×1×H×W of a standard normal distribution.

    Returns:
        A scalar.
    """
    noisy = add_noise(source, noise, timesteps)
    found = predicted_frame(noisy, network(noisy, timesteps).float(), timesteps)
    variance = 1 - signal_shares().to(source.device)[timesteps].view(-1, 1, 1, 1)
    return ((found - target).square() / variance).mean()


def grey_scale(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each of B×1×H×W frames, both B×1×1×1."""
    mean = frames.mean((2, 3), keepdim=True)
    return mean, (frames - mean).square().mean((2, 3), keepdim=True).sqrt() + 1e-6


@torch.no_grad()
def denoise(network: nn.Module, frames: Tensor, timestep: int, generator: Generator | None = None) -> Tensor:
    """Denoise frames by one call of the network, which takes them for frames that were diffused to ``timestep``.

    Args:
        network: As for ``denoising_loss``, in evaluation mode.
        frames: B×1×H×W in [0, 1].
        timestep: From 0 to ``STEPS`` - 1; more removes more.
        generator: Draws the noise that is added first; None adds none, and what the network then takes for noise is
            the frames' own.

    Returns:
        B×1×H×W in [0, 1].

    Raises:
        UsageError: If there is no such timestep.
    """
    if not 0 <= timestep < STEPS:
        raise UsageError(f"There is no timestep {timestep}.", f"Choose one from 0 to {STEPS - 1}.")
    mean, deviation = grey_scale(frames)
    noise = torch.zeros_like(frames)
    if generator is not None:
        noise = torch.randn(frames.shape, generator=generator).to(frames)
    timesteps = torch.full((len(frames),), timestep, device=frames.device)
    noisy = add_noise((frames - mean) / deviation, noise, timesteps)
    found = predicted_frame(noisy, network(noisy, timesteps).float(), timesteps)
    return (found * deviation + mean).clamp(0, 1)
