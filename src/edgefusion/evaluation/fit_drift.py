"""Fit the statistics by which a bundle tells frames unlike its training frames, see ``inference.drift``.

python -m edgefusion.evaluation.fit_drift BUNDLE STUDY

BUNDLE is a bundle, STUDY the one that it was trained on. Only the frames that it was trained on are looked at, and
nothing of the bundle but these statistics changes. ``edgefusion train`` does the same at its end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgefusion.evaluation.bootstrap import FEWEST_PATIENTS
from edgefusion.inference.drift import KEPT, STATISTICS, Drift

_PARTS = 50
"""Parts of the training patients that are left out in turn at most."""

_LEAST_DEVIATION = 0.02
"""Smallest standard deviation of a statistic: one that hardly varies in training must not decide alone."""


def fit(rows: NDArray[np.float64], patients: NDArray[np.intp]) -> Drift | None:
    """Find where the training frames lie, and the distance that frames of patients who were left out keep.

    The covariance is shrunk towards independent statistics, as if as many further frames as there are statistics had
    been seen in which nothing varies together: few frames leave more of it unknown.

    Args:
        rows: N × ``STATISTICS``, of the training frames.
        patients: N, a number for each patient; patients who share near-duplicate frames have the same.

    Returns:
        None with fewer than ``FEWEST_PATIENTS`` patients, which say nothing about another one.
    """
    _, patient = np.unique(patients, return_inverse=True)
    parts = patient % _PARTS
    if patient.max(initial=-1) + 1 < FEWEST_PATIENTS:
        return None
    distances = np.empty(len(rows))
    for part in np.unique(parts):
        left_out = parts == part
        mean, whitening = _gaussian(rows[~left_out])
        distances[left_out] = Drift(mean, whitening, 1.0).distances(rows[left_out])
    return Drift(*_gaussian(rows), float(np.quantile(distances, KEPT)))


def _gaussian(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean, and a matrix that makes the covariance the identity."""
    mean, deviation = rows.mean(0), np.maximum(rows.std(0), _LEAST_DEVIATION)
    units = (rows - mean) / deviation
    share = STATISTICS / (STATISTICS + len(rows))
    correlation = (1 - share) * (units.T @ units) / len(rows)
    np.fill_diagonal(correlation, 1)
    return mean, np.linalg.inv(np.linalg.cholesky(correlation)) / deviation
