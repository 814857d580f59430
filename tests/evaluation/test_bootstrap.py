from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edgefusion.evaluation.bootstrap import (
    RESAMPLES,
    difference_test,
    interval,
    patient_counts,
    ratio,
    sums_by_patient,
)


def test_counts_draw_as_many_patients_as_there_are_and_repeat():
    counts = patient_counts(7, 50, seed=3)
    assert counts.shape == (50, 7)
    assert (counts.sum(axis=1) == 7).all()
    assert (counts == patient_counts(7, 50, seed=3)).all()
    assert (counts != patient_counts(7, 50, seed=4)).any()


def test_sums_and_ratio():
    sums = sums_by_patient(np.array([1.0, 2.0, 4.0]), np.array([0, 2, 2]), 4)
    assert sums.tolist() == [1, 0, 6, 0]
    np.testing.assert_array_equal(ratio(sums, np.array([2.0, 0.0, 3.0, 0.0])), [0.5, np.nan, 2, np.nan])


def test_interval_of_many_patients_is_the_plain_percentile_interval():
    draws = np.random.default_rng(0).normal(size=20_000)
    assert interval(draws, 5000) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.01)


def test_interval_widens_with_fewer_patients():
    draws = np.random.default_rng(0).normal(size=20_000)
    widths = [np.ptp(interval(draws, patients)) for patients in (5, 10, 40)]
    assert widths[0] > widths[1] > widths[2]


@pytest.mark.parametrize("patients", [1, 2, 3])
def test_no_interval_for_a_handful_of_patients(patients: int):
    draws = np.random.default_rng(0).normal(9, 1, size=RESAMPLES)
    assert all(math.isnan(end) for end in interval(draws, patients))
    assert all(math.isnan(number) for number in difference_test(9.0, draws, patients))
    assert not math.isnan(interval(draws, 4)[0])
    assert not math.isnan(difference_test(9.0, draws, 4)[2])


def test_nothing_to_say_without_draws():
    assert all(math.isnan(number) for number in difference_test(1.0, np.full(10, np.nan), 5))
    assert math.isnan(interval(np.full(10, np.nan), 5)[0])


@given(st.integers(4, 40), st.floats(-4, 4), st.integers(0, 50))
@settings(max_examples=80, deadline=None)
def test_p_is_below_05_just_where_the_interval_excludes_zero(patients: int, shift: float, seed: int):
    draws = np.random.default_rng(seed).normal(shift, 1, size=1000)
    low, high, p = difference_test(shift, draws, patients)
    assert 0 < p <= 1
    assert low <= shift <= high
    assert (p < 0.05) == (low > 0 or high < 0)


def test_equal_frames_make_it_the_paired_t_test():
    """With as many frames from every patient, the test is Student's on the patients' means."""
    differences = np.random.default_rng(4).normal(0.5, 1, 10)
    counts = patient_counts(10, 50_000, seed=0)
    low, high, p = difference_test(float(differences.mean()), counts @ differences / 10, 10)
    expected = stats.ttest_1samp(differences, 0)
    assert p == pytest.approx(expected.pvalue, rel=0.05)
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval()), abs=0.01)


def test_differences_without_scatter():
    assert difference_test(0.0, np.zeros(100), 8) == (0, 0, 1)
    assert difference_test(0.2, np.full(100, 0.2), 8)[2] < 1e-12


@pytest.mark.parametrize("patients", [8, 24])
def test_intervals_cover_the_truth_as_often_as_they_say(patients: int):
    """Means of clustered frames with unequal numbers of frames a patient, 600 made-up studies."""
    generator = np.random.default_rng(1)
    counts = patient_counts(patients, 1500, seed=0)
    covered = plain = 0
    studies = 600
    for _ in range(studies):
        sizes = generator.integers(5, 40, patients).astype(float)
        sums = sizes * generator.normal(0.7, 0.1, patients) + np.sqrt(sizes) * generator.normal(0, 0.15, patients)
        draws = ratio(counts @ sums, counts @ sizes)
        low, high = interval(draws, patients)
        covered += low <= 0.7 <= high
        low, high = np.quantile(draws, [0.025, 0.975])
        plain += low <= 0.7 <= high
    # Four standard errors of 600 trials at .95 are .036.
    assert abs(covered / studies - 0.95) < 0.036
    assert covered > plain


def test_p_is_uniform_without_a_difference():
    generator = np.random.default_rng(2)
    counts = patient_counts(12, 2000, seed=0)
    p = []
    for _ in range(400):
        differences = generator.normal(0, 1, 12)
        p.append(difference_test(float(differences.mean()), counts @ differences / 12, 12)[2])
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.09
