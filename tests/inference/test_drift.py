"""How far a frame is from the training frames."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgefusion.config import ChannelRecipe
from edgefusion.errors import BundleError
from edgefusion.inference.drift import COMPANION, STATISTICS, Drift, plane_of, statistics


def reference() -> Drift:
    return Drift(np.zeros(STATISTICS), np.eye(STATISTICS), 2.0)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(32, 32), (48, 64), (96, 128)]),
    st.sampled_from(["flat", "noise", "ramp"]),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
)
def test_every_picture_has_finite_statistics(shape: tuple[int, int], kind: str, level: float, seed: int) -> None:
    plane: NDArray[np.float32] = np.full(shape, level, np.float32)
    if kind == "noise":
        plane = np.random.default_rng(seed).random(shape, dtype=np.float32)
    elif kind == "ramp":
        plane = plane * np.linspace(0, 1, shape[1], dtype=np.float32)
    values = statistics(plane)
    assert values.shape == (STATISTICS,)
    assert np.isfinite(values).all()


def test_statistics_are_what_they_say() -> None:
    plane = np.zeros((64, 64), np.float32)
    plane[:, 32:] = 1
    values = statistics(plane)
    assert values[:7] == pytest.approx([0, 0, 0, 1, 1, 1, 0.5])
    assert values[8:10] == pytest.approx(np.log(0.51), abs=1e-6)  # half black, half white
    assert values[10:18] == pytest.approx(0.5)
    assert values[18:21] == pytest.approx([0, 0.5, 1], abs=0.02)
    # Columns of one pixel: all of the finest scale is lateral, and its orthonormal detail has half their difference.
    stripes = np.tile(np.array([0, 1], np.float32), (64, 32))
    finest = np.exp(statistics(stripes)[21:24]) - 1 / 255
    assert finest == pytest.approx([0, 1, 0], abs=1e-6)
    # Their transpose is vertical.
    assert np.exp(statistics(stripes.T)[21:24]) - 1 / 255 == pytest.approx([1, 0, 0], abs=1e-6)


def test_half_precision_hardly_matters() -> None:
    plane = np.random.default_rng(0).random((96, 128), dtype=np.float32)
    np.testing.assert_allclose(statistics(plane), statistics(plane.astype(np.float16)), atol=0.02)


def test_the_raw_channel_is_looked_at_where_there_is_one() -> None:
    stack = np.zeros((2, 32, 32), np.float32)
    stack[1] = 1
    assert plane_of(stack, ChannelRecipe(channels=("edges", "raw"), height=32, width=32)).min() == 1
    assert plane_of(stack, ChannelRecipe(channels=("edges", "dpad"), height=32, width=32)).max() == 0


def test_drift_is_the_distance_over_the_limit() -> None:
    plane = np.random.default_rng(0).random((32, 32), dtype=np.float32)
    assert reference()(plane) == pytest.approx(np.linalg.norm(statistics(plane)) / 2)


def test_a_bundle_carries_it() -> None:
    plane = np.random.default_rng(0).random((32, 32), dtype=np.float32)
    assert Drift.of({}) is None
    carried = Drift.of({COMPANION: reference().tensors()})
    assert carried is not None
    assert carried(plane) == reference()(plane)


@pytest.mark.parametrize(
    "change",
    [
        {"version": torch.tensor(2)},
        {"mean": torch.zeros(3)},
        {"whitening": torch.full((STATISTICS, STATISTICS), torch.nan)},
        {"limit": torch.tensor(0.0)},
        {"limit": torch.tensor([1.0, 2.0])},
        {"mean": None},
    ],
)
def test_damaged_statistics_are_refused(change: dict[str, torch.Tensor | None]) -> None:
    tensors = {key: value for key, value in (reference().tensors() | change).items() if value is not None}
    with pytest.raises(BundleError, match="drift"):
        Drift.of({COMPANION: tensors})


def test_it_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        reference().limit = 1.0  # type: ignore[misc]
