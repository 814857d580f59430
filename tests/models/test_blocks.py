from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefusion.models.blocks import ChannelAttention, EdgeGate, GlobalContext, standardise


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def test_standardise_is_zero_mean_and_unit_variance_per_frame_and_channel() -> None:
    x = torch.rand(3, 2, 16, 24) * torch.tensor([0.1, 0.9]).view(1, 2, 1, 1) + torch.rand(3, 1, 1, 1)
    found = standardise(x).numpy()
    values = x.double().numpy()
    mean, std = values.mean((2, 3), keepdims=True), values.std((2, 3), keepdims=True)
    np.testing.assert_allclose(found, (values - mean) / (std + 1e-6), atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(level=st.floats(0, 1, width=32))
def test_a_constant_channel_becomes_zero(level: float) -> None:
    # Rounding of the mean leaves a residue, of which the small constant must not make a pattern.
    assert standardise(torch.full((1, 1, 96, 128), level)).abs().max() < 0.5


@settings(max_examples=30, deadline=None)
@given(gain=st.floats(0.05, 1), offset=st.floats(0, 0.5), seed=st.integers(0, 99))
def test_standardise_undoes_gain_and_offset(gain: float, offset: float, seed: int) -> None:
    x = torch.rand(1, 2, 16, 16, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(standardise(gain * x + offset), standardise(x), atol=1e-3, rtol=1e-3)


def test_attention_of_equal_scores_weighs_all_channels_alike() -> None:
    attention, x = ChannelAttention(3, 4, 5), torch.randn(2, 12, 8, 6)
    torch.nn.init.zeros_(attention.score.weight)
    torch.nn.init.zeros_(attention.score.bias)
    torch.testing.assert_close(attention(x), attention.mix(x / 3))


def test_attention_follows_a_channel_with_a_high_score() -> None:
    attention, x = ChannelAttention(3, 4, 5), torch.randn(2, 12, 8, 6)
    torch.nn.init.zeros_(attention.score.weight)
    with torch.no_grad():
        attention.score.bias.copy_(torch.tensor([0.0, 100.0, 0.0]))
    alone = torch.zeros_like(x)
    alone[:, 4:8] = x[:, 4:8]
    torch.testing.assert_close(attention(x), attention.mix(alone))


def test_an_open_gate_passes_the_skip_and_a_shut_one_nothing() -> None:
    gate, skip = EdgeGate(6, 4), torch.randn(1, 6, 8, 8)
    edges, decoder = torch.randn(1, 4, 8, 8), torch.randn(1, 6, 8, 8)
    torch.nn.init.constant_(gate.from_edges.bias, 1e4)
    torch.testing.assert_close(gate(skip, edges, decoder), skip)
    torch.nn.init.constant_(gate.from_edges.bias, -1e4)
    assert gate(skip, edges, decoder).abs().max() == 0


def test_context_relates_pixels_across_the_frame_for_any_size() -> None:
    context = GlobalContext(8, heads=2).eval()
    for height, width in ((2, 3), (6, 8), (1, 5)):
        x = torch.randn(1, 8, height, width)
        far = x.clone()
        far[..., 0, 0] += 1
        difference = (context(far) - context(x)).abs().amax(1)[0]
        assert difference.shape == (height, width)
        assert difference[-1, -1] > 0
