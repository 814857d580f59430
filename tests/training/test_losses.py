from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from edgefusion.config import TrainConfig
from edgefusion.models.blocks import SegmentationOutput
from edgefusion.training.losses import border_band, dice_and_cross_entropy, segmentation_loss


def test_the_band_is_dilation_minus_erosion() -> None:
    mask = np.zeros((20, 30), np.uint8)
    cv2.ellipse(mask, (15, 10), (8, 5), 20, 0, 360, 1, -1)
    kernel = np.ones((3, 3), np.uint8)
    expected = cv2.dilate(mask, kernel) - cv2.erode(mask, kernel)
    band = border_band(torch.from_numpy(mask).float()[None, None])
    assert np.array_equal(band[0, 0].numpy(), expected)


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
