"""What a network is trained to do: find the mask, its border, and whether the label is there at all.

Where several ranks train together, each has a share of the batch; the loss is that of the whole batch on all of them.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from monai.networks.layers import GaussianFilter
from torch import Tensor
from torch.nn import functional as F

from edgefusion.config import TrainConfig
from edgefusion.models.blocks import SegmentationOutput
from edgefusion.training.ranks import from_all_sum, ranks

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
    loss: Tensor = dice_loss(logits, target) + cross_entropy(logits, target, weight)
    return loss


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the Dice of each label over all pixels of the batch, its mean over the labels.

    One Dice over the whole batch: a frame without the label has no Dice of its own to learn from. It is MONAI's
    ``DiceLoss(sigmoid=True, batch=True, smooth_nr=1, smooth_dr=1)``, to the last bit, with sums over all ranks.

    Args:
        logits: B×L×H×W.
        target: B×L×H×W in [0, 1].

    Returns:
        A scalar.
    """
    found = torch.sigmoid(logits)
    parts = ((found * target).sum((0, 2, 3)), found.sum((0, 2, 3)), target.sum((0, 2, 3)))
    both, all_found, all_target = (from_all_sum(part) for part in parts)
    too_much, missed = (all_found - both) * 0.5, (all_target - both) * 0.5
    loss: Tensor = (1 - (2 * both + 1) / (2 * (both + too_much + missed) + 1)).mean()
    return loss


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean of the binary cross-entropy over the frames of all ranks, and over everything in a frame.

    Args:
        logits: B×... logits.
        target: The same shape, in [0, 1].
        weight: The same shape; by default all are alike.

    Returns:
        A scalar.
    """
    mean = F.binary_cross_entropy_with_logits(logits, target, weight)
    if ranks() == 1:
        return mean
    total, frames = from_all_sum(torch.stack([mean * len(target), torch.full_like(mean, len(target))]))
    over_all: Tensor = total / frames
    return over_all


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
        learn = cross_entropy if distance else dice_and_cross_entropy
        loss = loss + config.boundary_weight * learn(output.boundary.float(), border)
    if output.presence is not None:
        loss = loss + config.presence_weight * cross_entropy(output.presence.float(), present)
    return loss
