from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgefusion.errors import UsageError
from edgefusion.models.blocks import MixedNorm, standardise
from edgefusion.models.edgefusion_unet import EdgeFusionUNet


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def network(channels: int = 3, labels: int = 1, **arguments: object) -> EdgeFusionUNet:
    return EdgeFusionUNet(channels, labels, **arguments).eval()  # type: ignore[arg-type]


@torch.no_grad()
def test_attention_weights_sum_to_one_at_every_pixel_of_every_level() -> None:
    maps = network().attention_maps(torch.randn(2, 3, 64, 96))
    assert [tuple(weights.shape) for weights in maps] == [(2, 3, 32 >> level, 48 >> level) for level in range(3)]
    for weights in maps:
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]))


@torch.no_grad()
def test_attention_is_decided_pixel_by_pixel() -> None:
    for weights in network().attention_maps(torch.randn(1, 3, 64, 64)):
        assert weights.std((2, 3)).min() > 1e-4


@torch.no_grad()
def test_a_single_channel_has_all_the_weight() -> None:
    for weights in network(1).attention_maps(torch.randn(1, 1, 32, 32)):
        torch.testing.assert_close(weights, torch.ones_like(weights))


@torch.no_grad()
def test_no_channel_sees_another_before_the_fusion() -> None:
    model, x = network(), torch.randn(1, 3, 32, 32)
    changed = x.clone()
    changed[:, 1] += torch.randn(32, 32)
    for before, after in zip(model._pyramid(x), model._pyramid(changed), strict=True):
        same = [torch.equal(a, b) for a, b in zip(before.chunk(3, 1), after.chunk(3, 1), strict=True)]
        assert same == [True, False, True]


@torch.no_grad()
def test_every_channel_matters() -> None:
    model, x = network(), torch.randn(1, 3, 32, 32)
    for channel in range(3):
        changed = x.clone()
        changed[:, channel] = 0
        assert (model(changed).mask - model(x).mask).abs().max() > 1e-4


@torch.no_grad()
def test_which_channel_opens_the_gates_matters() -> None:
    model, x = network(), torch.randn(1, 3, 32, 32)
    assert model.edge_channel == 2
    last = model(x).mask
    model.edge_channel = 0
    assert (model(x).mask - last).abs().max() > 1e-4


@torch.no_grad()
def test_a_shut_gate_closes_the_skips() -> None:
    model, x = network(), torch.randn(1, 3, 32, 32)
    opened: list[Tensor] = []
    for gate in model.gates:
        gate.register_forward_hook(lambda _, inputs, output: opened.append((output / inputs[0]).nan_to_num(0.5)))
    model(x)
    assert len(opened) == 3
    assert all(share.min() >= 0 and share.max() <= 1 for share in opened)
    for gate in model.gates:
        torch.nn.init.constant_(gate.from_edges.bias, -1e4)
    opened.clear()
    model(x)
    assert all(share[share != 0.5].abs().max() == 0 for share in opened)


@torch.no_grad()
def test_every_pixel_can_see_the_whole_frame() -> None:
    model, x = network(), torch.randn(1, 3, 96, 128)
    changed = x.clone()
    changed[..., :8, :8] += 3
    assert (model(changed).mask - model(x).mask)[..., -8:, -8:].abs().max() > 0


@torch.no_grad()
def test_the_mask_is_shown_the_border() -> None:
    model, x = network(), torch.randn(1, 3, 32, 32)
    before = model(x)
    model.boundary_head.bias += 5
    after = model(x)
    assert not torch.equal(after.mask, before.mask)
    assert torch.equal(after.presence, before.presence)


@torch.no_grad()
def test_gain_and_offset_of_a_frame_do_not_matter() -> None:
    model, x = network(), torch.rand(1, 3, 32, 48)
    torch.testing.assert_close(model(standardise(0.3 * x + 0.2)).mask, model(standardise(x)).mask, atol=1e-3, rtol=1e-3)


def test_dropout_only_acts_in_training() -> None:
    model, x = network(dropout=0.5), torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        assert torch.equal(model(x).mask, model(x).mask)
        model.train()
        assert not torch.equal(model(x).mask, model(x).mask)


def test_it_can_learn_a_frame_by_heart() -> None:
    model = EdgeFusionUNet(2, 1, widths=(8, 16, 16, 16), stem_widths=(4, 4, 4), dropout=0.0, channel_dropout=0.0)
    target = torch.zeros(2, 1, 32, 32)
    target[0, :, 8:20, 10:26] = 1
    x = standardise(torch.rand(2, 2, 32, 32) + 0.3 * target)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(25):
        optimizer.zero_grad()
        output = model(x)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(output.mask, target)
        loss = loss + torch.nn.functional.binary_cross_entropy_with_logits(output.presence, target.amax((2, 3)))
        loss.backward()
        optimizer.step()
    found = model(x)
    assert ((found.mask > 0) == (target > 0.5)).float().mean() > 0.98
    assert found.presence.flatten()[0] > 0 > found.presence.flatten()[1]


@pytest.mark.parametrize(
    ("part", "lost"),
    [
        ({"fusion": "concatenation"}, "score"),
        ({"edge_gates": False}, "gates"),
        ({"boundary_head": False}, "boundary_head"),
        ({"presence_head": False}, "presence_head"),
    ],
)
def test_every_part_can_be_left_out(part: dict[str, Any], lost: str) -> None:
    whole, without = EdgeFusionUNet(3, 2), EdgeFusionUNet(3, 2, **part)
    names = {name for name, _ in whole.named_parameters()} - {name for name, _ in without.named_parameters()}
    assert names
    assert any(lost in name for name in names)
    output = without.eval()(torch.randn(1, 3, 32, 48))
    assert output.mask.shape == (1, 2, 32, 48)
    assert (output.boundary is None) == (lost == "boundary_head")
    assert (output.presence is None) == (lost == "presence_head")


def test_channels_are_blanked_in_training_only_and_never_all_of_them() -> None:
    model, x = EdgeFusionUNet(3, 1, channel_dropout=0.5), torch.rand(200, 3, 32, 32) + 0.1
    kept = (model._blank_channels(x) != 0).all(3).all(2)
    assert kept.any(1).all()
    assert 0.55 < kept.float().mean() < 0.7  # half of the channels, and all where none would have stayed
    model = EdgeFusionUNet(3, 1, channel_dropout=0.5, dropout=0.0).train()
    assert not torch.equal(model(x[:4]).mask, model(x[:4]).mask)
    assert torch.equal(model.eval()(x[:4]).mask, model(x[:4]).mask)
    alone = EdgeFusionUNet(1, 1, channel_dropout=0.9)
    assert torch.equal(alone._blank_channels(x[:, :1]), x[:, :1])


def test_with_instance_normalisation_a_frame_is_seen_alone() -> None:
    x = torch.rand(4, 1, 32, 32)
    for normalisation, alone in (("batch", False), ("mixed", False), ("instance", True)):
        model = EdgeFusionUNet(1, 1, dropout=0.0, normalisation=normalisation).train()  # type: ignore[arg-type]
        together, first = model(x).mask[:1], model(x[:1]).mask
        assert torch.allclose(together, first, atol=1e-4) == alone
    with pytest.raises(UsageError, match="no normalisation 'layer'"):
        EdgeFusionUNet(1, 1, normalisation="layer")  # type: ignore[arg-type]


def test_mixed_normalisation_is_its_two_halves() -> None:
    x = torch.rand(3, 8, 10, 12) * 5
    mixed = MixedNorm(8).train()
    out = mixed(x)
    assert torch.allclose(out[:, ::2], nn.InstanceNorm2d(4)(x[:, ::2]), atol=1e-6)
    assert torch.allclose(out[:, 1::2], nn.BatchNorm2d(4)(x[:, 1::2]), atol=1e-6)
