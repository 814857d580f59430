from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgefusion.errors import UsageError
from edgefusion.models.denoiser import (
    FIRST,
    STEPS,
    Denoiser,
    add_noise,
    denoise,
    denoising_loss,
    draw_timesteps,
    grey_scale,
    predicted_frame,
    signal_shares,
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def discs(count: int, seed: int) -> Tensor:
    """Frames of 32×32 in [0, 1] with a bright disc somewhere."""
    generator = torch.Generator().manual_seed(seed)
    row, column = 8 + 16 * torch.rand(2, count, 1, 1, 1, generator=generator)
    axis = torch.arange(32.0)
    inside = (axis[:, None] - row).square() + (axis - column).square() < 36
    return 0.3 + 0.4 * inside.float()


def test_the_schedule_is_the_squared_cosine_of_nichol_and_dhariwal() -> None:
    shares = signal_shares()
    assert shares.shape == (STEPS,)

    def formula(step: int) -> float:
        return math.cos((step / STEPS + 0.008) / 1.008 * math.pi / 2) ** 2

    for step in (0, FIRST, 499, 900):
        assert shares[step].item() == pytest.approx(formula(step + 1) / formula(0), abs=1e-4)
    assert (shares.diff() < 0).all()
    assert shares[-1] < 1e-4


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), steps=st.lists(st.integers(0, STEPS - 1), min_size=1, max_size=4))
def test_the_true_velocity_gives_the_frame_back(seed: int, steps: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    frame, noise = torch.randn(2, len(steps), 1, 4, 6, generator=generator)
    timesteps = torch.tensor(steps)
    share = signal_shares()[timesteps].view(-1, 1, 1, 1)
    velocity = share.sqrt() * noise - (1 - share).sqrt() * frame
    noisy = add_noise(frame, noise, timesteps)
    torch.testing.assert_close(predicted_frame(noisy, velocity, timesteps), frame, atol=1e-4, rtol=1e-4)


def test_the_predicted_frame_is_that_of_the_implicit_model() -> None:
    from monai.networks.schedulers import DDIMScheduler

    scheduler = DDIMScheduler(STEPS, schedule="cosine", prediction_type="v_prediction", clip_sample=False)
    scheduler.set_timesteps(STEPS)
    noisy, velocity = torch.randn(2, 3, 1, 8, 8)
    for step in (1, 100, 800):
        _, expected = scheduler.step(velocity, step, noisy)
        torch.testing.assert_close(predicted_frame(noisy, velocity, torch.full((3,), step)), expected)


def test_the_loss_without_clean_truth_is_that_of_the_velocity() -> None:
    frame, noise, guess = torch.randn(3, 4, 1, 8, 8)
    timesteps = torch.tensor([FIRST, 200, 500, 990])
    share = signal_shares()[timesteps].view(-1, 1, 1, 1)
    velocity = share.sqrt() * noise - (1 - share).sqrt() * frame
    network = torch.nn.Module()
    network.forward = lambda noisy, timesteps: guess  # type: ignore[method-assign, assignment]
    loss = denoising_loss(network, frame, frame, timesteps, noise)
    torch.testing.assert_close(loss, (guess - velocity).square().mean(), atol=1e-3, rtol=1e-3)


def test_timesteps_stay_in_range_and_favour_little_noise() -> None:
    timesteps = draw_timesteps(4000, torch.Generator().manual_seed(0))
    assert FIRST <= timesteps.min() < FIRST + 20
    assert STEPS - 20 < timesteps.max() < STEPS
    assert timesteps.float().median() < (FIRST + STEPS) / 2 - 100


@pytest.mark.parametrize(("height", "width"), [(32, 32), (96, 128), (40, 8)])
def test_a_velocity_has_the_size_of_its_frame(height: int, width: int) -> None:
    network = Denoiser().eval()
    assert network.multiple == 8
    velocity = network(torch.randn(2, 1, height, width), torch.tensor([FIRST, 900]))
    assert velocity.shape == (2, 1, height, width)
    assert velocity.abs().max() == 0  # a fresh network starts from the schedule's own guess


def test_the_network_knows_the_timestep() -> None:
    network = Denoiser((8, 8)).eval()
    torch.nn.init.normal_(network.head.weight)
    noisy = torch.randn(1, 1, 16, 16)
    few, many = (network(noisy, torch.tensor([step])) for step in (100, 900))
    assert (few - many).abs().max() > 1e-3


def test_grey_levels_come_back() -> None:
    frames = torch.rand(2, 1, 16, 16) * torch.tensor([0.2, 0.7]).view(2, 1, 1, 1) + 0.1
    mean, deviation = grey_scale(frames)
    torch.testing.assert_close(mean[:, 0, 0, 0], frames.mean((1, 2, 3)))
    # At timestep 0 next to nothing is taken for noise.
    torch.testing.assert_close(denoise(Denoiser((8, 8)).eval(), frames, 0), frames, atol=1e-3, rtol=0)
    assert deviation.min() > 0
    flat = torch.full((1, 1, 16, 16), 0.4)
    torch.testing.assert_close(denoise(Denoiser((8, 8)).eval(), flat, 300), flat, atol=1e-3, rtol=0)


def test_an_unknown_timestep_is_refused() -> None:
    for step in (-1, STEPS):
        with pytest.raises(UsageError, match="no timestep"):
            denoise(Denoiser((8, 8)), torch.rand(1, 1, 16, 16), step)


@pytest.mark.parametrize("clean_truth", [False, True])
def test_one_step_of_a_trained_network_reduces_noise(clean_truth: bool) -> None:
    """Trained on discs without noise, or on noisy discs with their clean truth; asked about discs it never saw."""
    spread = 0.1
    network = Denoiser((16, 16))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for step in range(150):
        clean = discs(8, seed=step)
        seen = clean + spread * torch.randn(clean.shape, generator=generator) if clean_truth else clean
        mean, deviation = grey_scale(seen)
        timesteps, noise = draw_timesteps(8, generator), torch.randn(clean.shape, generator=generator)
        loss = denoising_loss(network, (seen - mean) / deviation, (clean - mean) / deviation, timesteps, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    clean = discs(8, seed=10_000)
    noisy = (clean + spread * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    # Noise of 0.1 on discs of this contrast is what the schedule adds up to about this timestep.
    found = denoise(network.eval(), noisy, 300)
    before, after = ((frame - clean).square().mean() for frame in (noisy, found))
    assert after < 0.5 * before
    again = denoise(network, noisy, 300)
    torch.testing.assert_close(found, again, atol=0, rtol=0)
    drawn = denoise(network, noisy, 300, torch.Generator().manual_seed(1))
    assert (drawn - found).abs().max() > 1e-4
