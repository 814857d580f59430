from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from edgefusion.arrays import as_unit
from edgefusion.errors import UsageError


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(st.sampled_from([np.uint8, np.uint16]), hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_integers_are_scaled_by_their_full_scale(image: NDArray[np.integer]) -> None:
    unit = as_unit(image)
    assert unit.dtype == np.float32
    assert unit.flags.c_contiguous
    np.testing.assert_array_equal(np.rint(unit * np.iinfo(image.dtype).max).astype(image.dtype), image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_black_is_0_and_white_is_1(dtype: type[np.integer]) -> None:
    image = np.array([[0, np.iinfo(dtype).max]], dtype=dtype)
    np.testing.assert_array_equal(as_unit(image), [[0, 1]])


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.float64, (3, 4), elements=st.floats(0, 1)))
def test_floating_point_passes(image: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(as_unit(image), image, atol=1e-7)


def test_the_input_is_left_alone_and_not_shared() -> None:
    image = np.full((2, 2), 0.5, dtype=np.float32)
    as_unit(image)[:] = 0
    assert (image == 0.5).all()


def test_colour_becomes_luma() -> None:
    image = np.zeros((1, 4, 3), dtype=np.uint8)
    image[0, 0] = 255
    for channel in range(3):
        image[0, 1 + channel, channel] = 255
    np.testing.assert_allclose(as_unit(image), [[1, 0.299, 0.587, 0.114]], atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.uint8, (4, 5)))
def test_grey_as_colour_stays_grey(image: NDArray[np.uint8]) -> None:
    np.testing.assert_allclose(as_unit(np.repeat(image[..., None], 3, axis=2)), as_unit(image), atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.uint8, (3, 4, 3)))
def test_colour_stays_within_the_range(image: NDArray[np.uint8]) -> None:
    unit = as_unit(image)
    assert unit.shape == (3, 4)
    assert unit.min() >= 0
    assert unit.max() <= 1


def test_views_of_any_stride_are_taken() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(6, 8)
    unit = as_unit(image[::-2, ::3])
    assert unit.flags.c_contiguous
    np.testing.assert_allclose(unit * 255, image[::-2, ::3], atol=1e-4)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros(5, np.uint8),
        np.zeros((2, 2, 2, 2), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros((4, 4), np.int32),
        np.zeros((4, 4), np.bool_),
        np.zeros((4, 4), np.complex64),
        np.full((4, 4), 1.5),
        np.full((4, 4), -0.1),
        np.full((4, 4), np.nan),
        np.full((4, 4), np.inf),
        np.array([["a"]]),
    ],
    ids=lambda image: f"{image.dtype}{image.shape}{image.flat[:1]}",
)
def test_what_is_no_frame_is_refused(image: NDArray[np.generic]) -> None:
    with pytest.raises(UsageError, match="frame"):
        as_unit(image)
