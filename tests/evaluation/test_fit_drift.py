"""Fitting the drift of a bundle to its training frames."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgefusion.evaluation.fit_drift import fit
from edgefusion.inference.drift import STATISTICS


def patients(count: int, frames: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Statistics that vary five times as much between patients as within."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(STATISTICS, STATISTICS))
    of_patient = np.repeat(rng.normal(size=(count, STATISTICS)), frames, axis=0)
    return (of_patient + 0.2 * rng.normal(size=of_patient.shape)) @ mix, np.repeat(np.arange(count), frames)


def test_the_limit_holds_for_patients_who_were_left_out() -> None:
    rows, patient = patients(120, 10, 0)
    fitted = fit(rows[:600], patient[:600])
    assert fitted is not None
    new = fitted.distances(rows[600:]) > fitted.limit
    assert new.mean() < 0.05
    # Had frames been left out instead of patients, each would have had its patient's other frames as neighbours.
    by_frame = fit(rows[:600], np.arange(600))
    assert by_frame is not None
    assert by_frame.limit < 0.95 * fitted.limit


def test_what_varies_otherwise_is_far() -> None:
    rows, patient = patients(60, 10, 0)
    fitted = fit(rows, patient)
    assert fitted is not None
    scattered = np.random.default_rng(1).normal(size=(50, STATISTICS)) * rows.std(0)
    assert (fitted.distances(scattered) > fitted.limit).mean() > 0.8


def test_a_statistic_that_never_varies_does_not_decide_alone() -> None:
    rows, patient = patients(60, 10, 0)
    rows[:, 3] = 0.5
    fitted = fit(rows, patient)
    assert fitted is not None
    moved = rows[:1].copy()
    moved[0, 3] += 0.01
    assert fitted.distances(moved)[0] == pytest.approx(fitted.distances(rows[:1])[0], rel=0.05)
    assert fitted.whitening[3, 3] == pytest.approx(1 / 0.02)


def test_few_patients_say_nothing_of_another_one() -> None:
    rows, patient = patients(3, 10, 0)
    assert fit(rows, patient) is None
    assert fit(rows[:0], patient[:0]) is None
