"""Networks by name: EdgeFusion-UNet, and MONAI's own U-Net, Residual U-Net and Attention U-Net as baselines.

A baseline comes in two sizes: its customary width, and ``-matched``, the width that brings it to
EdgeFusion-UNet's multiply-adds within 10 %. A claim counts only against the better of the two. Attention U-Net's
customary width is within 10 % already, so its two sizes are one.
"""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from torch import Tensor, nn

from edgefusion.errors import UsageError
from edgefusion.models.blocks import PRIOR_LOGIT, SegmentationOutput
from edgefusion.models.edgefusion_unet import EdgeFusionUNet
from edgefusion.models.names import MODELS

MULTIPLE = 16
"""Height and width of an input must be multiples of this, and at least twice it, for every network of the zoo."""


class Baseline(nn.Module):
    """A network that only segments, given the output type of the zoo.

    Args:
        network: Maps B×C×H×W to B×L×H×W logits.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> SegmentationOutput:
        """B×C×H×W -> mask logits only."""
        return SegmentationOutput(self.network(x) + PRIOR_LOGIT, None, None)


def check_name(name: str) -> None:
    """Raise a ``UsageError`` that suggests the nearest name if there is no such network."""
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Choose one of {', '.join(MODELS)}."
        raise UsageError(f"There is no model called '{name}'.", hint)


def check_size(height: int, width: int) -> None:
    """Raise a ``UsageError`` that names the nearest usable size if the networks cannot take this one."""
    usable = [max(2, round(side / MULTIPLE)) * MULTIPLE for side in (height, width)]
    if [height, width] != usable:
        raise UsageError(
            f"The networks cannot take an input of {height}×{width}: both sides must be multiples of {MULTIPLE}, "
            f"from {2 * MULTIPLE} up.",
            f"Use {usable[0]}×{usable[1]}.",
        )


def build_model(name: str, in_channels: int, labels: int, **arguments: Any) -> nn.Module:
    """Make a network with fresh weights.

    Args:
        name: One of ``edgefusion.models.names.MODELS``.
        in_channels: Number of input channels C.
        labels: Number of labels L.
        **arguments: Passed to EdgeFusion-UNet; the baselines take none.

    Returns:
        A module whose forward maps B×C×H×W float32 (H, W multiples of 16) to a ``SegmentationOutput``.

    Raises:
        UsageError: If there is no such network or argument, or a baseline is given arguments.
    """
    check_name(name)
    if arguments and name != "edgefusion-unet":
        raise UsageError(
            f"'{name}' takes no arguments, but was given {', '.join(arguments)}.", "Its name fixes its width."
        )
    known = list(inspect.signature(EdgeFusionUNet).parameters)[2:]
    for argument in arguments:
        if argument not in known:
            raise UsageError(f"EdgeFusion-UNet has no argument '{argument}'.", f"It has: {', '.join(known)}.")
    # MONAI takes a second to import and EdgeFusion-UNet does not need it.
    match name:
        case "edgefusion-unet":
            return EdgeFusionUNet(in_channels, labels, **arguments)
        case "unet" | "unet-matched":
            from monai.networks.nets import BasicUNet

            w = 16 if name == "unet" else 21
            return Baseline(BasicUNet(2, in_channels, labels, features=(w, w, 2 * w, 4 * w, 8 * w, w)))
        case "resunet" | "resunet-matched":
            from monai.networks.nets import UNet

            w = 16 if name == "resunet" else 27
            widths = tuple(w * 2**level for level in range(5))
            return Baseline(UNet(2, in_channels, labels, widths, strides=(2, 2, 2, 2), num_res_units=2))
        case _:
            from monai.networks.nets import AttentionUnet

            return Baseline(AttentionUnet(2, in_channels, labels, (16, 32, 64, 128), strides=(2, 2, 2)))
