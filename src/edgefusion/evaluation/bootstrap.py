"""Resampling whole patients: intervals and p-values that know that a patient's frames resemble each other.

Frames of one patient are near copies, so the patient is the unit that is drawn. Every measure here is a
ratio of sums over patients; a resample is then one row of patient counts, and thousands of them are
one matrix product.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

RESAMPLES = 10_000
"""Enough for the third digit of an interval to stay put, and still well under a second."""

FEWEST_PATIENTS = 4
"""With fewer, nothing honest can be said about the patients to come: no interval, no p-value."""


def patient_counts(patients: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """How often each patient is drawn in each resample (with replacement, as many as there are).

    The same arguments give the same draws, which is what makes a comparison of two models paired.

    Returns:
        resamples × patients; every row sums to ``patients``.
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(patients, np.full(patients, 1 / patients), size=resamples).astype(np.float64)


def sums_by_patient(values: NDArray[np.float64], patient: NDArray[np.intp], patients: int) -> NDArray[np.float64]:
    """Add up one value a frame within each patient.

    Args:
        values: N, one a frame.
        patient: N, the patient's index.
        patients: How many patients there are.
    """
    return np.bincount(patient, weights=values, minlength=patients).astype(np.float64)


def ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide element by element; NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)


def interval(draws: NDArray[np.float64], patients: int) -> tuple[float, float]:
    """The expanded percentile interval of bootstrap draws, meant to cover the truth 95 times in 100.

    The plain percentile interval is too narrow for few patients (its standard error is short by
    sqrt((n-1)/n), and it uses the normal's quantile where Student's is due). Hesterberg (2014, "What
    teachers should know about the bootstrap", section 4) takes the percentile at
    Phi(-sqrt(n/(n-1)) t_{n-1}) instead; for many patients that is the plain interval again.

    Args:
        draws: The statistic in every resample; NaN where it is undefined.
        patients: How many patients contribute to the statistic.

    Returns:
        Low and high end; NaN with fewer than ``FEWEST_PATIENTS``, or with too few draws to reach the tails.
    """
    defined = draws[~np.isnan(draws)]
    if patients < FEWEST_PATIENTS:
        return math.nan, math.nan
    student = special.stdtrit(patients - 1, 0.025)
    tail = special.ndtr(math.sqrt(patients / (patients - 1)) * student)
    if tail * (len(defined) + 1) < 1:
        return math.nan, math.nan
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def difference_test(difference: float, draws: NDArray[np.float64], patients: int) -> tuple[float, float, float]:
    """Interval and p-value of a difference, from its bootstrap standard error and Student's distribution.

    The standard error is widened by sqrt(n/(n-1)), as in ``interval``, and n-1 degrees of freedom are the
    custom for few clusters (Cameron, Gelbach and Miller 2008). Unlike the share of draws beyond 0, this
    p-value has no floor set by the number of draws, which would hide any difference between many models on
    few patients; in simulations both kept their level equally well. The interval excludes 0 just where p
    is below .05.

    Args:
        difference: As observed.
        draws: The same in every resample; NaN where it is undefined.
        patients: How many patients contribute to it.

    Returns:
        Low and high end of the 95 % interval, and the two-sided p-value; NaN with fewer than ``FEWEST_PATIENTS``.
    """
    defined = draws[~np.isnan(draws)]
    if patients < FEWEST_PATIENTS or len(defined) < 2:
        return math.nan, math.nan, math.nan
    error = float(defined.std()) * math.sqrt(patients / (patients - 1))
    margin = -float(special.stdtrit(patients - 1, 0.025)) * error
    # Without any scatter, a difference is certain and the lack of one too.
    student = abs(difference) / error if error > 0 else math.inf if difference else 0.0
    return difference - margin, difference + margin, float(2 * special.stdtr(patients - 1, -student))
