"""Order statistics against sorting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from edgefusion.channels.ranks import nth_smallest, quantile


@settings(max_examples=60, deadline=None)
@given(
    values=arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 70)),
        elements=st.one_of(st.floats(0, 2.0**60, width=32), st.sampled_from([0.0, 1.0, 1.0009765625])),
    ),
    data=st.data(),
)
def test_equals_sorting(values: NDArray[np.float32], data: st.DataObject) -> None:
    rank = data.draw(st.integers(0, values.size - 1))
    assert nth_smallest(values, rank, bands=data.draw(st.integers(1, 3))) == np.sort(values.ravel())[rank]


def test_block_of_a_plane() -> None:
    values = np.random.default_rng(0).random((40, 60), dtype=np.float32)
    block = values[5:30, 16:57]
    expected = np.sort(block.ravel())[300]
    assert nth_smallest(values, 300, top=5, left=16, shape=block.shape) == expected


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99, 1.0])
def test_quantile(share: float) -> None:
    values = np.random.default_rng(1).random((101, 100), dtype=np.float32)
    assert quantile(values, share) == pytest.approx(float(np.quantile(values, share)), abs=1e-3)
