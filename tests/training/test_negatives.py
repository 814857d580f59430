from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edgefusion.training.negatives import Box, around, beside, label_box, with_negatives

HEIGHT, WIDTH = 48, 64


def frames(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise of level 0.2 to 0.4 with a label of level 1 in each frame, off the middle and a quarter as high."""
    generator = torch.Generator().manual_seed(seed)
    stack = 0.2 + 0.2 * torch.rand(count, 2, HEIGHT, WIDTH, generator=generator)
    target = torch.zeros(count, 1, HEIGHT, WIDTH)
    for one in target:
        top, left = (int(torch.randint(4, 11, (1,), generator=generator)) for _ in range(2))
        one[:, top : top + 12, left : left + 10] = 1
    return torch.where(target > 0, 1.0, stack), target


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(0, 1000))
def test_an_emptied_frame_shows_nothing_of_the_label_and_its_counterpart_all_of_it(seed: int) -> None:
    stack, target = frames(4, seed)
    seen, kept = with_negatives(stack, target, 0.5, seeded(seed))
    assert seen.shape == stack.shape
    assert kept.shape == target.shape
    for frame, label, before in zip(seen, kept, target, strict=True):
        # What is bright is the label, and nothing else is, whatever was done.
        if label.any():
            assert label.sum() >= before.sum() - 1e-3
            assert frame[:, label[0] > 0.99].min() > 0.99
        assert frame[:, label[0] == 0].max() < 0.5


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_as_many_frames_are_emptied_as_are_changed_alike(share: float) -> None:
    stack, target = frames(600, 0)
    seen, kept = with_negatives(stack, target, share, seeded(0))
    empty = kept.amax((1, 2, 3)) == 0
    changed = (seen != stack).flatten(1).any(1)
    tolerance = 3 * (share * (1 - share) / 600) ** 0.5
    assert float(empty.float().mean()) == pytest.approx(share, abs=tolerance)
    assert float((changed & ~empty).float().mean()) == pytest.approx(share, abs=tolerance)


def test_a_cut_is_enlarged_as_much_with_the_label_as_without() -> None:
    """A ramp across the frame, whose steepness tells by how much a part was enlarged."""
    _, target = frames(600, 0)
    ramp = torch.linspace(0, 1, WIDTH).expand(600, 1, HEIGHT, WIDTH)
    seen, kept = with_negatives(ramp, target, 0.5, seeded(0))
    empty = kept.amax((1, 2, 3)) == 0
    steepness = (seen[:, 0, 0, -6] - seen[:, 0, 0, 5]) / (ramp[:, 0, 0, -6] - ramp[:, 0, 0, 5])
    # Covered frames keep their first row or get a foreign patch there; cuts are ramps throughout.
    straight = (seen[:, 0].diff(n=2, dim=2)[:, :, 3:-3].abs() < 1e-4).flatten(1).all(1)
    cut = straight & (steepness < 0.95)
    assert (cut & empty).sum() > 80
    quantiles = torch.tensor([0.1, 0.5, 0.9])
    with_label, without = (steepness[cut & which].quantile(quantiles) for which in (~empty, empty))
    assert torch.allclose(with_label, without, atol=0.05)


def test_frames_without_room_or_label_stay_as_they_are() -> None:
    stack, target = frames(8, 0)
    empty = torch.zeros_like(target)
    assert torch.equal(with_negatives(stack, empty, 0.5, seeded(0))[0], stack)
    full = torch.ones_like(target)
    seen, kept = with_negatives(stack, full, 0.5, seeded(0))
    assert torch.equal(seen, stack)
    assert torch.equal(kept, full)


def test_the_same_chance_gives_the_same_frames_and_the_arguments_are_left_alone() -> None:
    stack, target = frames(8, 0)
    before = stack.clone(), target.clone()
    first, second = (with_negatives(stack, target, 0.5, seeded(7)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(stack, before[0])
    assert torch.equal(target, before[1])


@given(st.data())
def test_places_are_within_the_frame_and_clear_of_the_label_or_hold_it(data: st.DataObject) -> None:
    box_height, box_width = data.draw(st.integers(1, HEIGHT)), data.draw(st.integers(1, WIDTH))
    top, left = data.draw(st.integers(0, HEIGHT - box_height)), data.draw(st.integers(0, WIDTH - box_width))
    box = Box(top, left, box_height, box_width)
    shown = torch.zeros(1, HEIGHT, WIDTH)
    box.of(shown).fill_(1)
    height, width = data.draw(st.integers(1, HEIGHT)), data.draw(st.integers(1, WIDTH))
    part = beside(box, height, width, (HEIGHT, WIDTH), seeded(data.draw(st.integers(0, 99))))
    if part is None:
        rooms = top, HEIGHT - top - box_height, left, WIDTH - left - box_width
        assert height > max(rooms[:2])
        assert width > max(rooms[2:])
    else:
        assert part.of(shown).shape == (1, height, width)
        assert not part.of(shown).any()
    larger = data.draw(st.integers(box_height, HEIGHT)), data.draw(st.integers(box_width, WIDTH))
    held = around(box, *larger, (HEIGHT, WIDTH), seeded(data.draw(st.integers(0, 99))))
    assert held.of(shown).shape == (1, *larger)
    assert held.of(shown).sum() == shown.sum()


def test_the_box_of_a_label_keeps_a_margin_within_the_frame() -> None:
    target = torch.zeros(2, 40, 60)
    assert label_box(target) is None
    target[0, 1, 20] = 0.1
    target[1, 30, 58] = 1
    assert label_box(target) == Box(0, 18, 33, 42)
