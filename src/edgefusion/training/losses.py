"""What a network is trained to do: find the mask, its border, and whether the label is there at all."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from monai.losses import DiceLoss
from monai.networks.layers import GaussianFilter
from torch import Tensor
from torch.nn import functional as F

from edgefusion.config import TrainConfig
from edgefusion.models.blocks import SegmentationOutput

# One Dice over the whole batch: a frame without the label has no Dice of its own to learn from.
_dice = DiceLoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)

_REACH = 8.0
"""Pixels from the border at which the signed distance ends."""


def border_band(target: Tensor) -> Tensor:
    """The band one pixel to each side of the border: 3×3 dilation minus 3×3 erosion (PBE-UNet, 2026).

    Args:
        target: B×L×H×W in [0, 1].

    Returns:
        B×L×H×W in [0, 1].
    """
    return F.max_pool2d(target, 3, stride=1, padding=1) + F.max_pool2d(-target, 3, stride=1, padding=1)


def signed_distance(target: Tensor) -> Tensor:
    """How far each pixel lies from the border, inside positive: 0.5 on it, 1 and 0 at 8 pixels and beyond.

    Args:
        target: B×L×H×W in [0, 1].

    Returns:
        B×L×H×W in [0, 1]; 0 everywhere where a label is not there.
    """
    planes = (target >= 0.5).flatten(0, 1).to(torch.uint8).cpu().numpy()
    distances = [
        cv2.distanceTransform(plane, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - plane, cv2.DIST_L2, 5)
        if plane.any()
        else np.full(plane.shape, -_REACH, np.float32)
        for plane in planes
    ]
    near = torch.from_numpy(np.stack(distances)).clamp(-_REACH, _REACH)
    return (near / (2 * _REACH) + 0.5).view_as(target).to(target.device)


def dice_and_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Dice loss plus binary cross-entropy of B×L×H×W logits against targets in [0, 1].

    Args:
        logits: What the network says.
        target: What it should say.
        weight: B×L×H×W weights of the pixels in the cross-entropy; by default all are alike.
    """
    loss: Tensor = _dice(logits, target) + F.binary_cross_entropy_with_logits(logits, target, weight)
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
    present = (target.amax((2, 3)) >= 0.5).to(torch.float32)
    band = border_band(target)
    distance = config.boundary_target == "distance"
    border = signed_distance(target) if distance and output.boundary is not None else band
    if config.border_softness:
        target = GaussianFilter(2, config.border_softness)(target)
    emphasis = 1 + config.border_emphasis * band if config.border_emphasis else None
    loss = dice_and_cross_entropy(output.mask.float(), target, emphasis)
    if output.boundary is not None:
        learn = F.binary_cross_entropy_with_logits if distance else dice_and_cross_entropy
        loss = loss + config.boundary_weight * learn(output.boundary.float(), border)
    if output.presence is not None:
        presence = F.binary_cross_entropy_with_logits(output.presence.float(), present)
        loss = loss + config.presence_weight * presence
    return loss
