"""What a network is trained to do: find the mask, its border, and whether the label is there at all."""

from __future__ import annotations

import torch
from monai.losses import DiceLoss
from torch import Tensor
from torch.nn import functional as F

from edgefusion.config import TrainConfig
from edgefusion.models.blocks import SegmentationOutput

# One Dice over the whole batch: a frame without the label has no Dice of its own to learn from.
_dice = DiceLoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)


def border_band(target: Tensor) -> Tensor:
    """The band one pixel to each side of the border: 3×3 dilation minus 3×3 erosion (PBE-UNet, 2026).

    Args:
        target: B×L×H×W in [0, 1].

    Returns:
        B×L×H×W in [0, 1].
    """
    return F.max_pool2d(target, 3, stride=1, padding=1) + F.max_pool2d(-target, 3, stride=1, padding=1)


def dice_and_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Dice loss plus binary cross-entropy of B×L×H×W logits against targets in [0, 1]."""
    loss: Tensor = _dice(logits, target) + F.binary_cross_entropy_with_logits(logits, target)
    return loss


def segmentation_loss(output: SegmentationOutput, target: Tensor, config: TrainConfig) -> Tensor:
    """The sum that is minimised: mask, and, where the network has the heads, border and presence.

    Args:
        output: Logits of the network.
        target: B×L×H×W share of each pixel that the label covers, in [0, 1].
        config: Gives the weights of the parts.

    Returns:
        A scalar.
    """
    loss = dice_and_cross_entropy(output.mask.float(), target)
    if output.boundary is not None:
        loss = loss + config.boundary_weight * dice_and_cross_entropy(output.boundary.float(), border_band(target))
    if output.presence is not None:
        present = (target.amax((2, 3)) >= 0.5).to(torch.float32)
        presence = F.binary_cross_entropy_with_logits(output.presence.float(), present)
        loss = loss + config.presence_weight * presence
    return loss
