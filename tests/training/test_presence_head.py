from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.metrics import roc_auc_score

from edgefusion.config import TrainConfig
from edgefusion.errors import UsageError
from edgefusion.models.blocks import standardise
from edgefusion.models.edgefusion_unet import EdgeFusionUNet
from edgefusion.training.dataset import FrameSet
from edgefusion.training.presence_head import fit_presence_head

SMALL: dict[str, Any] = {"widths": (8,) * 4, "stem_widths": (4,) * 3}
CONFIG = TrainConfig(negatives=0.25, intensity=False)


def discs(count: int, seed: int, share: float = 1.0) -> FrameSet:
    """Dark noise; a share of the frames has a bright square somewhere, which is the label."""
    generator = torch.Generator().manual_seed(seed)
    stacks = 0.3 * torch.rand(count, 1, 48, 64, generator=generator)
    targets = torch.zeros_like(stacks)
    for frame, target in zip(stacks[: round(share * count)], targets, strict=False):
        top, left = (int(torch.randint(2, high, (1,), generator=generator)) for high in (35, 50))
        frame[:, top : top + 10, left : left + 10] = 1
        target[:, top : top + 10, left : left + 10] = 1
    return FrameSet(stacks.half(), targets.half())


def network(labels: int = 1) -> EdgeFusionUNet:
    torch.manual_seed(0)
    return EdgeFusionUNet(1, labels, **SMALL)


def presence(fitted: EdgeFusionUNet, frames: FrameSet) -> torch.Tensor:
    with torch.no_grad():
        output = fitted.eval()(standardise(frames.stacks.float())).presence
    assert output is not None
    return output.sigmoid()


def test_it_tells_new_empty_frames_though_it_was_shown_none_and_leaves_the_network_alone() -> None:
    fitted = network()
    before = {name: value.clone() for name, value in fitted.state_dict().items() if "presence_head" not in name}
    fit_presence_head(fitted, discs(96, seed=0), CONFIG)
    after = fitted.state_dict()
    assert all(value.equal(after[name]) for name, value in before.items())
    new = discs(80, seed=1, share=0.5)
    found = presence(fitted, new)[:, 0]
    shown = (new.targets.amax((1, 2, 3)) > 0).numpy()
    assert roc_auc_score(shown, found.numpy()) > 0.9
    assert found[shown].median() > 0.75


def test_one_seed_gives_one_head() -> None:
    first, again, other = network(), network(), network()
    for one, seed in ((first, 0), (again, 0), (other, 1)):
        fit_presence_head(one, discs(64, seed=0), TrainConfig(negatives=0.25, seed=seed))
    heads = [one.presence_head[-1].weight for one in (first, again, other) if one.presence_head is not None]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_what_is_always_or_never_there_cannot_be_learnt() -> None:
    frames = discs(32, seed=0)
    always = FrameSet(frames.stacks, torch.ones_like(frames.targets))
    for wrong in (always, FrameSet(frames.stacks, torch.zeros_like(frames.targets))):
        with pytest.raises(UsageError, match="cannot be learnt"):
            fit_presence_head(network(), wrong, CONFIG)
