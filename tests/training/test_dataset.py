from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefusion.config import ChannelRecipe
from edgefusion.data.study import Study
from edgefusion.errors import DataError
from edgefusion.training.dataset import EpochBatches, load_frames, soft_target

_RECIPE = ChannelRecipe(("raw", "edges"), height=32, width=48)


def test_frames_of_any_size_become_one_set(discs: Study) -> None:
    ids = list(discs.frames["frame_id"])
    frames = load_frames(discs, ids, _RECIPE, discs.path / "cache")
    assert frames.stacks.shape == (36, 2, 32, 48)
    assert frames.targets.shape == (36, 1, 32, 48)
    assert list(frames.patients) == list(discs.frames["patient_id"])
    stack, target = frames.__getitems__([3, 1])
    assert np.array_equal(stack[1].numpy(), frames[1][0].numpy())
    assert np.array_equal(target[0].numpy(), frames[3][1].numpy())


def test_an_unlabelled_frame_is_refused_by_name(discs: Study) -> None:
    frames = discs.frames.copy()
    frames.loc[0, "mask"] = ""
    with pytest.raises(DataError, match="0_0"):
        load_frames(replace(discs, frames=frames), ["0_0"], _RECIPE, discs.path / "cache")


def test_soft_targets_keep_the_area_of_every_label() -> None:
    mask = np.zeros((60, 90), np.uint8)
    mask[10:31, 20:41] = 1
    mask[40:47, 50:73] = 2
    target = soft_target(mask, 2, 20, 30)
    assert target.shape == (2, 20, 30)
    assert target.sum((1, 2)) * 9 == pytest.approx([21 * 21, 7 * 23], rel=1e-5)


def test_an_epoch_shows_each_frame_once_and_depends_on_seed_and_epoch_alone() -> None:
    batches = EpochBatches(50, 8, seed=1)
    first = [index for batch in batches for index in batch]
    assert len(first) == 48
    assert len(set(first)) == 48
    batches.set_epoch(3)
    third = list(batches)
    again = EpochBatches(50, 8, seed=1)
    again.set_epoch(3)
    assert list(again) == third
    assert third[0] != first[:8]


@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=12), seed=st.integers(0, 2**16))
def test_dealt_frames_keep_groups_apart_and_all_come(sizes: list[int], seed: int) -> None:
    groups = [str(group) for group, size in enumerate(sizes) for _ in range(size)]
    order = [index for batch in EpochBatches(len(groups), 1, seed, groups) for index in batch]
    assert sorted(order) == list(range(len(groups)))
    for group, size in enumerate(sizes):
        places = [place for place, index in enumerate(order) if groups[index] == str(group)]
        assert np.diff(places).min(initial=len(order)) >= len(order) // size - len(sizes)


def test_a_batch_of_equal_groups_shows_none_twice() -> None:
    groups = [str(patient) for patient in range(20) for _ in range(7)]
    for batch in EpochBatches(140, 10, 3, groups):
        assert len({groups[index] for index in batch}) == 10
