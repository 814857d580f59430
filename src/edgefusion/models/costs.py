"""Parameters and multiply-adds of a network, counted. ``python -m edgefusion.models.costs`` refreshes costs.json."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgefusion.files import write_json
from edgefusion.models.names import MODELS
from edgefusion.models.zoo import build_model


def measure(model: nn.Module, in_channels: int, height: int, width: int) -> dict[str, int]:
    """Count one network.

    Args:
        model: A network of the zoo.
        in_channels: Channels of its input.
        height: Rows of its input.
        width: Columns of its input.

    Returns:
        ``parameters``, and ``multiply_adds`` of one frame as torch's own counter sees them
        (convolutions and matrix products; a multiplication and its addition count once).
    """
    model = model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, in_channels, height, width))
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "multiply_adds": counter.get_total_flops() // 2,
    }


def measure_all() -> dict[str, dict[str, int]]:
    """Count every network of the zoo at 96×128, one channel, one label."""
    return {name: measure(build_model(name, 1, 1), 1, 96, 128) for name in MODELS}


if __name__ == "__main__":
    write_json(Path(__file__).with_name("costs.json"), measure_all())
