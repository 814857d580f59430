from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from edgefusion.bundle import Bundle
from edgefusion.inference.predictor import Predictor
from edgefusion.inference.temperature import factors, scale, scale_tensor

PROBABILITY = st.floats(0, 1, width=32)


@given(PROBABILITY, st.floats(0.2, 5))
def test_a_logit_is_divided(probability: float, temperature: float) -> None:
    value = np.array([[probability]], dtype=np.float32)
    scaled = scale(value, (1 / temperature,))
    assert np.isclose(scaled, expit(logit(np.float64(value)) / temperature), atol=1e-6)
    tensor = scale_tensor(torch.from_numpy(value), torch.tensor([[1 / temperature]]))
    assert np.isclose(tensor.numpy(), scaled, atol=1e-6)


@given(st.lists(PROBABILITY, min_size=1, max_size=9), st.floats(0.2, 5))
def test_the_order_stays_and_what_is_cut_at_a_half(values: list[float], temperature: float) -> None:
    value = np.sort(np.array([values], dtype=np.float32))
    scaled = scale(value, (1 / temperature,))
    assert (np.diff(scaled) >= 0).all()
    assert (scaled[value >= 0.5] >= 0.5).all()
    # One bit of float32 below a half may round up to it.
    assert (scaled[value < 0.4999999] < 0.5).all()


def test_no_factors_where_nothing_changes() -> None:
    assert factors({}, ["nerve", "vessel"]) is None
    assert factors({"nerve": 1.0}, ["nerve", "vessel"]) is None
    assert factors({"vessel": 2.0}, ["nerve", "vessel"]) == (1.0, 0.5)


def test_a_prediction_is_calibrated_and_its_mask_is_the_same(make_bundle: Callable[..., Bundle]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 90), dtype=np.uint8)
    for presence in (None, (0.3,)):
        plain = Predictor(make_bundle((3.0,), presence)).predict(image)
        warm = Predictor(make_bundle((3.0,), presence, temperatures={"nerve": 2.5})).predict(image)
        assert np.array_equal(plain.mask, warm.mask)
        assert plain.mask.any()
        np.testing.assert_allclose(warm.probability, expit(logit(plain.probability.astype(float)) / 2.5), atol=1e-6)
        # What the presence head says is its own; without a head it is the greatest probability.
        expected = plain.presence[0] if presence else float(warm.probability.max())
        assert np.isclose(warm.presence[0], expected)
        assert np.array_equal(plain.edge_probability, warm.edge_probability)


def test_thresholds_hold_for_calibrated_probabilities(make_bundle: Callable[..., Bundle]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 90), dtype=np.uint8)
    thresholds = {"mask": 0.7, "presence": 0.5}
    warm = Predictor(make_bundle((3.0,), temperatures={"nerve": 2.0}, thresholds=thresholds)).predict(image)
    assert np.array_equal(warm.mask > 0, warm.probability[0] >= 0.7)
