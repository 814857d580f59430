from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefusion.config import TrainConfig
from edgefusion.training.augment import Views, apply_views, draw_views

_NOTHING = TrainConfig(flip=False, affine=False, intensity=False)


def _identity(batch: int) -> Views:
    return draw_views(batch, 1.0, _NOTHING, torch.Generator())


def test_nothing_wanted_changes_nothing() -> None:
    stack, target = torch.rand(3, 2, 16, 24), torch.rand(3, 1, 16, 24)
    seen, moved = apply_views(stack, target, _identity(3))
    assert torch.allclose(seen, stack, atol=1e-5)
    assert torch.allclose(moved, target, atol=1e-5)


def test_a_mirror_moves_frame_and_target_alike() -> None:
    stack = torch.rand(1, 1, 16, 24)
    views = _identity(1)
    views.affine[0, 0, 0] = -1
    seen, moved = apply_views(stack, stack.clone(), views)
    assert torch.allclose(seen, stack.flip(3), atol=1e-5)
    assert torch.allclose(moved, stack.flip(3), atol=1e-5)


def test_a_rotation_keeps_shapes_on_a_frame_that_is_not_square() -> None:
    rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    disc = (((rows - 47.5) ** 2 + (columns - 63.5) ** 2) < 30**2).float()[None, None]
    angle, aspect = math.radians(30), 128 / 96
    views = _identity(1)
    views.affine[0] = torch.tensor(
        [[math.cos(angle), -math.sin(angle) / aspect, 0], [math.sin(angle) * aspect, math.cos(angle), 0]]
    )
    _, moved = apply_views(disc, disc, views)
    # A disc turned about its centre stays a disc; a shear would not.
    assert (moved - disc).abs().mean() < 0.01


def test_the_target_keeps_its_values_when_grey_levels_change() -> None:
    config = TrainConfig(flip=False, affine=False, intensity=True)
    stack, target = torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8)
    seen, moved = apply_views(stack, target, draw_views(4, 1.0, config, torch.Generator().manual_seed(1)))
    assert torch.allclose(moved, target, atol=1e-5)
    assert not torch.allclose(seen, stack, atol=1e-2)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), batch=st.integers(1, 5))
def test_views_stay_in_range_and_are_reproducible(seed: int, batch: int) -> None:
    stack, target = torch.rand(batch, 2, 16, 16), (torch.rand(batch, 1, 16, 16) > 0.5).float()
    draws = [draw_views(batch, 1.0, TrainConfig(), torch.Generator().manual_seed(seed)) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(vars(draws[0]).values(), vars(draws[1]).values(), strict=True))
    for part in apply_views(stack, target, draws[0]):
        assert part.min() >= 0
        assert part.max() <= 1


@pytest.mark.parametrize("batch", [1, 7])
def test_every_frame_gets_a_view_of_its_own(batch: int) -> None:
    views = draw_views(batch, 1.3, TrainConfig(), torch.Generator().manual_seed(0))
    assert views.affine.shape == (batch, 2, 3)
    assert len(set(views.gamma.tolist())) == batch


def test_a_shadow_darkens_what_lies_below_its_beginning_and_nothing_else() -> None:
    stack = torch.full((1, 2, 40, 60), 0.8)
    views = _identity(1)
    views.shadow[0] = torch.tensor([0.5, 0.1, 0.4, 0.75])
    seen, _ = apply_views(stack, torch.zeros(1, 1, 40, 60), views)
    assert torch.allclose(seen[:, :, :16], stack[:, :, :16], atol=1e-5)
    assert torch.allclose(seen[:, :, 20:, 29:31], torch.tensor(0.2), atol=0.01)
    assert torch.allclose(seen[..., :10], stack[..., :10], atol=1e-3)


def test_a_gain_field_is_smooth_and_alike_in_all_channels() -> None:
    views = _identity(1)
    views.field[0, 0, 0, 0] = math.log(1.5)
    seen, _ = apply_views(torch.full((1, 2, 30, 40), 0.5), torch.zeros(1, 1, 30, 40), views)
    assert seen[0, 0, 0, 0] == pytest.approx(0.75, abs=1e-3)
    assert torch.equal(seen[0, 0], seen[0, 1])
    assert seen.diff(dim=3).abs().max() < 0.05
    assert seen[0, 0, -1, -1] == pytest.approx(0.5, abs=1e-3)


def test_some_frames_are_shadowed_and_others_not() -> None:
    darkness = draw_views(200, 1.3, TrainConfig(), torch.Generator().manual_seed(0)).shadow[:, 3]
    assert 0.1 < (darkness > 0).float().mean() < 0.3
