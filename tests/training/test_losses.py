from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from monai.losses import DiceLoss
from scipy import ndimage

from edgefusion.config import TrainConfig
from edgefusion.models.blocks import SegmentationOutput
from edgefusion.training.losses import (
    border_band,
    dice_and_cross_entropy,
    dice_loss,
    segmentation_loss,
    signed_distance,
)


def test_the_band_is_dilation_minus_erosion() -> None:
    mask = np.zeros((20, 30), np.uint8)
    cv2.ellipse(mask, (15, 10), (8, 5), 20, 0, 360, 1, -1)
    kernel = np.ones((3, 3), np.uint8)
    expected = cv2.dilate(mask, kernel) - cv2.erode(mask, kernel)
    band = border_band(torch.from_numpy(mask).float()[None, None])
    assert np.array_equal(band[0, 0].numpy(), expected)


@pytest.mark.parametrize("labels", [1, 2])
def test_the_dice_loss_is_monais_to_the_last_bit(labels: int) -> None:
    target = torch.rand(6, labels, 48, 64, generator=torch.Generator().manual_seed(labels))
    results = []
    for loss in (dice_loss, DiceLoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)):
        logits = torch.randn(target.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
        value = loss(logits, target)
        value.backward()
        assert logits.grad is not None
        results.append((value, logits.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_a_perfect_answer_costs_next_to_nothing_and_a_wrong_one_much() -> None:
    target = torch.zeros(2, 1, 16, 16)
    target[:, :, 4:9, 4:9] = 1
    right, wrong = (target * 2 - 1) * 20, (1 - target * 2) * 20
    assert dice_and_cross_entropy(right, target) < 1e-3
    assert dice_and_cross_entropy(wrong, target) > 5


def test_an_empty_batch_is_finite_and_wants_silence() -> None:
    target = torch.zeros(2, 1, 16, 16)
    loud, silent = torch.full_like(target, 5.0), torch.full_like(target, -5.0)
    assert dice_and_cross_entropy(silent, target) < dice_and_cross_entropy(loud, target)


@pytest.mark.parametrize("head", ["boundary", "presence"])
def test_each_head_adds_its_weighted_part(head: str) -> None:
    target = torch.zeros(2, 2, 16, 16)
    target[0, 0, 4:9, 4:9] = 1
    logits = torch.zeros_like(target)
    config = TrainConfig()
    plain = segmentation_loss(SegmentationOutput(logits, None, None), target, config)
    if head == "boundary":
        right = (border_band(target) * 2 - 1) * 20
        outputs = [SegmentationOutput(logits, sign * right, None) for sign in (1, -1)]
    else:
        right = torch.tensor([[20.0, -20.0], [-20.0, -20.0]])
        outputs = [SegmentationOutput(logits, None, sign * right) for sign in (1, -1)]
    good, bad = (segmentation_loss(output, target, config) for output in outputs)
    assert good == pytest.approx(float(plain), abs=1e-3)
    assert bad > good + 0.5


def test_the_signed_distance_is_scipys_and_ends_at_eight_pixels() -> None:
    mask = np.zeros((40, 50), np.uint8)
    cv2.ellipse(mask, (25, 20), (16, 12), 20, 0, 360, 1, -1)
    target = torch.from_numpy(mask).float()[None, None].repeat(2, 1, 1, 1)
    target[1] = 0
    found = signed_distance(target)
    inside, outside = ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(1 - mask)
    expected = np.clip(inside - outside, -8, 8) / 16 + 0.5
    assert np.abs(found[0, 0].numpy() - expected).max() < 0.02  # OpenCV's 5x5 mask is exact to a few per cent
    assert not found[1].any()


def test_a_head_that_learns_the_distance_is_best_off_with_it() -> None:
    target = torch.zeros(1, 1, 16, 16)
    target[:, :, 4:9, 4:9] = 1
    config = TrainConfig(boundary_target="distance")
    mask = torch.zeros_like(target)
    distance, band = (torch.logit(x.clamp(1e-4, 1 - 1e-4)) for x in (signed_distance(target), border_band(target)))
    losses = [segmentation_loss(SegmentationOutput(mask, head, None), target, config) for head in (distance, band)]
    assert losses[0] < losses[1]


def test_emphasis_makes_an_error_at_the_border_dearer_than_one_elsewhere() -> None:
    target = torch.zeros(1, 1, 16, 16)
    target[:, :, 4:9, 4:9] = 1
    right = (target * 2 - 1) * 5
    at_border, elsewhere = right.clone(), right.clone()
    at_border[..., 4, 4] *= -1
    elsewhere[..., 6, 6] *= -1

    def cost(logits: torch.Tensor, emphasis: float) -> float:
        config = TrainConfig(border_emphasis=emphasis)
        return float(segmentation_loss(SegmentationOutput(logits, None, None), target, config))

    assert cost(at_border, 0) == pytest.approx(cost(elsewhere, 0), abs=1e-5)
    assert cost(at_border, 2) > cost(elsewhere, 2) + 0.02


def test_soft_borders_forgive_a_border_that_is_a_pixel_off() -> None:
    target = torch.zeros(1, 1, 24, 24)
    target[:, :, 6:16, 6:16] = 1
    off = target.roll(1, 3)

    def cost(mask: torch.Tensor, softness: float) -> float:
        output = SegmentationOutput((mask * 2 - 1) * 5, None, None)
        return float(segmentation_loss(output, target, TrainConfig(border_softness=softness)))

    assert cost(off, 1.5) / cost(target, 1.5) < cost(off, 0) / cost(target, 0)
