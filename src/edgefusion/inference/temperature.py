"""Temperature scaling: probabilities that mean what they say (Guo et al., "On calibration of modern neural networks",
2017). A logit is divided by one number for all pixels of a label; above 1 it makes a network less sure of itself.

It is applied to probabilities at the frame's own size, where they are judged, and not to the network's logits: resizing
would otherwise come in between, and move the outline. So 0.5 stays 0.5, and a mask cut there is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def factors(temperatures: Mapping[str, float], labels: Sequence[str]) -> tuple[float, ...] | None:
    """What the logits of each label are multiplied with, 1 / temperature; None where all stay as they are."""
    if all(temperatures.get(label, 1.0) == 1.0 for label in labels):
        return None
    return tuple(1 / temperatures.get(label, 1.0) for label in labels)


def scale(probability: NDArray[np.float32], by: Sequence[float]) -> NDArray[np.float32]:
    """Calibrated probabilities.

    Args:
        probability: L×... in [0, 1].
        by: The L ``factors``.
    """
    scaled = np.empty_like(probability)
    with np.errstate(divide="ignore", over="ignore"):
        for source, target, factor in zip(probability, scaled, by, strict=True):
            # The odds against, to the power of the factor; at 0 they are infinite, and come back as 0.
            np.log((1 - source) / source, out=target)
            np.exp(target * np.float32(factor), out=target)
            np.reciprocal(1 + target, out=target)
    return scaled


def scale_tensor(probability: Tensor, by: Tensor) -> Tensor:
    """``scale`` for tensors: L×... (or B×L×... with ``by`` of a shape that fits) in [0, 1]."""
    return 1 / (1 + (torch.log((1 - probability) / probability) * by).exp())
