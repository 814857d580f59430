"""A presence head for a network that was trained on frames that all show every label, fitted when it is finished."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgefusion.config import TrainConfig
from edgefusion.errors import UsageError
from edgefusion.models.blocks import standardise
from edgefusion.models.edgefusion_unet import EdgeFusionUNet
from edgefusion.training.augment import apply_views, draw_views
from edgefusion.training.dataset import EpochBatches, FrameSet
from edgefusion.training.negatives import with_negatives

_ROUNDS = 3
_BATCH = 32


def fit_presence_head(network: EdgeFusionUNet, frames: FrameSet, config: TrainConfig) -> None:
    """Fit the presence head in place; no other weight changes, so the masks stay as they are.

    Diagonal linear discriminant analysis (Dudoit et al. 2002) on the features that the head sees: each is weighed by
    the distance between its two means over its variance within them. It has nothing to tune, and generalised to new
    patients at least as well as logistic regressions of any penalty: few patients cannot tell how features go together.
    Slope and offset of a logistic curve then make a probability of it, among frames of which ``config.negatives`` are
    empty.

    Args:
        network: Trained, with a presence head, whose weights do not matter.
        frames: What it was trained on.
        config: Gives the share of negatives, the kinds of views, and the seed.

    Raises:
        UsageError: If the frames with negatives all show a label, or none does.
    """
    from sklearn.linear_model import LogisticRegression

    features, present = _features(network, frames, config)
    assert network.presence_head is not None
    linear = network.presence_head[-1]
    assert isinstance(linear, nn.Linear)
    for label in range(present.shape[1]):
        there = present[:, label]
        if there.all() or not there.any():
            raise UsageError("Presence cannot be learnt: no frame lacks the label, or none has it.", "Ask for more.")
        shown, empty = features[there], features[~there]
        variance = (len(shown) * shown.var(0) + len(empty) * empty.var(0)) / len(features)
        distance = shown.mean(0) - empty.mean(0)
        weight = np.divide(distance, variance, out=np.zeros_like(distance), where=variance > 0)
        score = features @ weight
        curve = LogisticRegression().fit(score[:, None] / score.std(), there)
        weight *= curve.coef_.item() / score.std()
        with torch.no_grad():
            linear.weight[label] = torch.from_numpy(weight)
            linear.bias[label] = curve.intercept_.item()


@torch.no_grad()
def _features(
    network: EdgeFusionUNet, frames: FrameSet, config: TrainConfig
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """What the head sees, N×F, and which labels are there, N×L, in a few random views of every frame."""
    assert network.presence_head is not None
    generator = torch.Generator().manual_seed(config.seed)
    batches = EpochBatches(len(frames), min(_BATCH, len(frames)), config.seed)
    device = next(network.parameters()).device
    seen: list[Tensor] = []
    present: list[Tensor] = []
    hook = network.presence_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].double().cpu()))
    network.eval()
    for epoch in range(_ROUNDS):
        batches.set_epoch(epoch)
        for indices in batches:
            stack, target = frames.__getitems__(indices)
            stack, target = with_negatives(stack, target, config.negatives, generator)
            views = draw_views(len(stack), stack.shape[3] / stack.shape[2], config, generator)
            stack, target = apply_views(stack, target, views)
            network(standardise(stack.to(device)).contiguous(memory_format=torch.channels_last))
            present.append(target.amax((2, 3)) >= 0.5)
    hook.remove()
    return torch.cat(seen).numpy(), torch.cat(present).numpy()
