"""A network whose answer is known in advance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgefusion.bundle import Bundle
from edgefusion.channels.recipe import build_stack
from edgefusion.config import ChannelRecipe
from edgefusion.inference.drift import COMPANION, Drift, plane_of
from edgefusion.inference.picture_statistics import STATISTICS, statistics
from edgefusion.models.blocks import SegmentationOutput


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Bright(nn.Module):
    """Finds what is brighter than the frame's mean.

    Args:
        gains: How sure it is of each label.
        presence: Logits of the presence head, one a label; without them it has neither that head nor one for borders.
    """

    def __init__(self, gains: Sequence[float], presence: Sequence[float] | None) -> None:
        super().__init__()
        self.gains = nn.Parameter(torch.tensor(gains))
        self.presence = presence
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> SegmentationOutput:
        self.batches.append(len(x))
        mask = x[:, :1] * self.gains.view(1, -1, 1, 1)
        if self.presence is None:
            return SegmentationOutput(mask, None, None)
        return SegmentationOutput(mask, -mask, torch.tensor(self.presence).expand(len(x), -1))


@pytest.fixture
def make_bundle() -> Callable[..., Bundle]:
    def make(
        gains: Sequence[float] = (20.0,),
        presence: Sequence[float] | None = None,
        model: nn.Module | None = None,
        labels: Sequence[str] = ("nerve", "vessel", "muscle"),
        **values: Any,
    ) -> Bundle:
        return Bundle(
            model=model or Bright(gains, presence),
            model_name="bright",
            recipe=ChannelRecipe(channels=("raw",), height=48, width=64),
            labels=list(labels[: len(gains)]),
            **values,
        )

    return make


@pytest.fixture
def knows() -> Callable[[Bundle, NDArray[np.uint8]], Bundle]:
    """Gives a bundle a drift by which it knows frames like one, and nothing else: ``knows(bundle, image)``."""

    def give(bundle: Bundle, image: NDArray[np.uint8]) -> Bundle:
        plane = plane_of(build_stack(image, bundle.recipe), bundle.recipe)
        bundle.companions[COMPANION] = Drift(statistics(plane), np.eye(STATISTICS), 3.0).tensors()
        return bundle

    return give


@pytest.fixture
def frame() -> NDArray[np.uint8]:
    """105×145 with a bright rectangle in rows 30-59 and columns 40-99."""
    image = np.full((105, 145), 40, dtype=np.uint8)
    image[30:60, 40:100] = 200
    return image
