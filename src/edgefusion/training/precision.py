"""Which number format trains faster on this machine: measured, not guessed."""

from __future__ import annotations

import copy
import time
from typing import Literal

import torch
from torch import nn

from edgefusion.config import TrainConfig
from edgefusion.models.blocks import standardise
from edgefusion.training.dataset import FrameSet
from edgefusion.training.losses import segmentation_loss

_WORTH_IT = 0.85


def choose_precision(network: nn.Module, frames: FrameSet, config: TrainConfig) -> Literal["32-true", "bf16-mixed"]:
    """Lightning's name of the format to train in.

    bfloat16 halves the time on processors (and GPUs) that compute in it and doubles it on those that
    emulate it, so with ``config.precision`` "auto" one step of each is timed on a copy of the network.
    """
    match config.precision:
        case "32":
            return "32-true"
        case "bf16":
            return "bf16-mixed"
        case "auto":
            faster = _seconds(network, frames, config, True) < _WORTH_IT * _seconds(network, frames, config, False)
            return "bf16-mixed" if faster else "32-true"


def _seconds(network: nn.Module, frames: FrameSet, config: TrainConfig, bf16: bool) -> float:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trial = copy.deepcopy(network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    stack, target = (part.to(device) for part in frames.__getitems__(list(range(min(4, len(frames))))))
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            output = trial(standardise(stack).contiguous(memory_format=torch.channels_last))
        segmentation_loss(output, target, config).backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best
