from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefusion.training.texture import speckle_and_haze


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), batch=st.integers(1, 5))
def test_frames_stay_in_range_and_are_reproducible(seed: int, batch: int) -> None:
    stack = torch.rand(batch, 2, 32, 48)
    seen, again = (speckle_and_haze(stack, torch.Generator().manual_seed(seed)) for _ in range(2))
    assert seen.shape == stack.shape
    assert seen.min() >= 0
    assert seen.max() <= 1
    assert torch.equal(seen, again)


def test_about_a_quarter_of_the_frames_stay_as_they_were_and_channels_change_alike() -> None:
    stack = torch.full((400, 2, 16, 16), 0.4)
    seen = speckle_and_haze(stack, torch.Generator().manual_seed(1))
    same = ((seen - stack).abs().amax((1, 2, 3)) < 1e-6).float().mean()
    assert 0.15 < same < 0.35
    assert torch.equal(seen[:, 0], seen[:, 1])


def test_speckle_multiplies_and_haze_lifts() -> None:
    black = speckle_and_haze(torch.zeros(200, 1, 16, 16), torch.Generator().manual_seed(2))
    lifted = black.amax((1, 2, 3)) > 1e-6
    assert 0.35 < lifted.float().mean() < 0.65  # black speckle stays black, so only haze shows
    assert black.max() < 0.3
