from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from edgefusion.bundle import Bundle
from edgefusion.config import PostProcessing
from edgefusion.data.clip import Region
from edgefusion.errors import UsageError
from edgefusion.inference.postprocess import clean, largest_region, without_holes, without_small_regions
from edgefusion.inference.predictor import Predictor

LABELS = ["nerve", "vessel", "muscle"]
EIGHT = np.ones((3, 3))

SIZES = array_shapes(min_dims=2, max_dims=2, max_side=14)
MASKS = arrays(np.bool_, SIZES)
LABEL_MASKS = arrays(np.uint8, SIZES, elements=st.integers(0, len(LABELS)))
STEP = st.builds(PostProcessing, st.sampled_from([0.0, 0.01, 0.05, 0.3]), st.booleans(), st.booleans())
STEPS = st.dictionaries(st.sampled_from(LABELS), STEP)


@given(MASKS, st.floats(0, 30))
def test_regions_stay_whole_or_go(mask: NDArray[np.bool_], smallest: float) -> None:
    kept = without_small_regions(mask, smallest)
    regions, count = scipy.ndimage.label(mask, EIGHT)
    for number in range(1, count + 1):
        region = regions == number
        assert kept[region].all() == kept[region].any() == (region.sum() >= smallest)
    assert not (kept & ~mask).any()
    np.testing.assert_array_equal(without_small_regions(kept, smallest), kept)


@given(MASKS)
def test_one_region_stays_and_none_is_larger(mask: NDArray[np.bool_]) -> None:
    kept = largest_region(mask)
    regions, count = scipy.ndimage.label(mask, EIGHT)
    areas = scipy.ndimage.sum_labels(mask, regions, range(1, count + 1))
    assert kept.sum() == max(areas, default=0)
    assert scipy.ndimage.label(kept, EIGHT)[1] == min(count, 1)
    assert not (kept & ~mask).any()
    np.testing.assert_array_equal(largest_region(kept), kept)


@given(MASKS)
def test_holes_are_filled_as_scipy_fills_them(mask: NDArray[np.bool_]) -> None:
    filled = without_holes(mask)
    np.testing.assert_array_equal(filled, scipy.ndimage.binary_fill_holes(mask))
    np.testing.assert_array_equal(without_holes(filled), filled)


@given(LABEL_MASKS, STEPS)
def test_what_is_clean_stays_as_it_is(mask: NDArray[np.uint8], steps: Mapping[str, PostProcessing]) -> None:
    before = mask.copy()
    once = clean(mask, LABELS, steps, mask.size)
    np.testing.assert_array_equal(mask, before)
    np.testing.assert_array_equal(clean(once, LABELS, steps, mask.size), once)


@given(LABEL_MASKS, STEPS)
def test_no_pixel_passes_from_one_label_to_another(
    mask: NDArray[np.uint8], steps: Mapping[str, PostProcessing]
) -> None:
    cleaned = clean(mask, LABELS, steps, mask.size)
    changed = cleaned != mask
    for value, label in enumerate(LABELS, 1):
        step = steps.get(label, PostProcessing())
        lost, won = changed & (mask == value), changed & (cleaned == value)
        if not (step.smallest_area or step.largest_region):
            assert not (lost & (cleaned == 0)).any()
        # A removed region may be filled by the label around it.
        kept = (mask == value) & ~lost
        assert not (won & ~scipy.ndimage.binary_fill_holes(kept)).any()
        if not step.fill_holes:
            assert not won.any()
        if not kept.any():
            assert not (cleaned == value).any()
        if step.largest_region:
            assert scipy.ndimage.label(cleaned == value, EIGHT)[1] <= 1
        if step.smallest_area and kept.any():
            areas = np.bincount(scipy.ndimage.label(cleaned == value, EIGHT)[0].ravel())[1:]
            assert areas.min() >= step.smallest_area * mask.size


@given(LABEL_MASKS, STEPS)
def test_labels_without_steps_are_left_alone(mask: NDArray[np.uint8], steps: Mapping[str, PostProcessing]) -> None:
    cleaned = clean(mask, LABELS, steps, mask.size)
    for value, label in enumerate(LABELS, 1):
        if label not in steps:
            np.testing.assert_array_equal(cleaned == value, mask == value)


@given(SIZES, STEPS)
def test_what_is_empty_stays_empty(size: tuple[int, int], steps: Mapping[str, PostProcessing]) -> None:
    assert not clean(np.zeros(size, np.uint8), LABELS, steps, size[0] * size[1]).any()


def test_a_vessel_in_a_nerve_is_no_hole() -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[1:8, 1:8] = 1
    mask[3:6, 3:6] = 0
    mask[4, 4] = 2
    filled = clean(mask, LABELS, {"nerve": PostProcessing(fill_holes=True)}, mask.size)
    assert filled[4, 4] == 2
    assert (filled == 1).sum() == 48
    # Unless it is too small to be one.
    steps = {"nerve": PostProcessing(fill_holes=True), "vessel": PostProcessing(smallest_area=2 / 81)}
    assert (clean(mask, LABELS, steps, mask.size) == 1).sum() == 49


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_a_share(share: float) -> None:
    with pytest.raises(UsageError, match="share of the frame"):
        PostProcessing(smallest_area=share)


def test_mask_areas_and_outlines_of_a_prediction_agree(
    make_bundle: Callable[..., Bundle], frame: NDArray[np.uint8]
) -> None:
    frame = frame.copy()
    frame[5:20, 5:20] = 200
    frame[40:50, 60:80] = 40
    plain = Predictor(make_bundle()).predict(frame)
    steps = {"nerve": PostProcessing(largest_region=True, fill_holes=True)}
    cleaned = Predictor(make_bundle(postprocessing=steps)).predict(frame, spacing=(0.1, 0.1))
    assert len(plain.contours[0]) == 2
    assert len(cleaned.contours[0]) == 1
    assert not cleaned.mask[:25].any()
    assert cleaned.mask[30:60, 40:100].all()
    assert cleaned.area_px == (int(cleaned.mask.sum()),)
    assert cleaned.area_mm2 == pytest.approx((cleaned.area_px[0] / 100,))
    np.testing.assert_array_equal(cleaned.probability, plain.probability)
    assert cleaned.presence == plain.presence


def test_the_smallest_area_is_a_share_of_the_region_looked_at(
    make_bundle: Callable[..., Bundle], frame: NDArray[np.uint8]
) -> None:
    # The rectangle is 12 % of the frame, and 38 % of the region.
    predictor = Predictor(make_bundle(postprocessing={"nerve": PostProcessing(smallest_area=0.25)}))
    assert not predictor.predict(frame).mask.any()
    assert predictor.predict(frame, region=Region(20, 20, 60, 80)).mask.any()
