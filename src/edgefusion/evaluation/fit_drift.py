"""Fit the statistics by which a bundle tells frames unlike its training frames, see ``inference.drift``.

python -m edgefusion.evaluation.fit_drift BUNDLE STUDY

BUNDLE is a bundle, STUDY the one that it was trained on. Only the frames that it was trained on are looked at, and
nothing of the bundle but these statistics changes. ``edgefusion train`` does the same at its end.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgefusion.bundle import Bundle
from edgefusion.bundles import find
from edgefusion.channels.recipe import cached_stacks
from edgefusion.data.splits import patient_blocks
from edgefusion.data.study import Study
from edgefusion.errors import EdgeFusionError, UsageError
from edgefusion.evaluation.bootstrap import FEWEST_PATIENTS
from edgefusion.inference.drift import COMPANION, KEPT, Drift, plane_of
from edgefusion.inference.picture_statistics import STATISTICS, statistics
from edgefusion.progress import say

_PARTS = 50
"""Parts of the training patients that are left out in turn at most."""

_LEAST_DEVIATION = 0.02
"""Smallest standard deviation of a statistic: one that hardly varies in training must not decide alone."""


def fit_drift(bundle: Bundle, study: Study) -> bool:
    """Fit the drift of a bundle to the frames that it was trained on, and put it among the bundle's companions.

    Frames that nearly repeat one of a patient whom it was not trained on are left out, as in training.

    Args:
        bundle: Its channels and the patients whom it was trained on decide; it is not saved.
        study: The one that it was trained on.

    Returns:
        Whether there is one now: fewer than ``FEWEST_PATIENTS`` patients say nothing about another one.

    Raises:
        UsageError: If it was trained on another study.
    """
    if study.sha256() != bundle.study_sha256:
        raise UsageError(
            f"The bundle was not trained on {study.path}, or that has changed since.",
            f"Give the study '{bundle.study_name}' whose frames.csv has the SHA-256 {bundle.study_sha256}.",
        )
    labelled = study.labelled()
    known = labelled["patient_id"].isin(bundle.trained_on)
    strangers = study.frames["group"][~study.frames["patient_id"].isin(bundle.trained_on)]
    frames = labelled[known & ~labelled["group"].isin(strangers)]
    stacks = cached_stacks(study, [str(frame) for frame in frames["frame_id"]], bundle.recipe, study.cache)
    rows = np.array([statistics(plane_of(stack, bundle.recipe)) for stack in stacks]).reshape(-1, STATISTICS)
    drift = fit(rows, patient_blocks(frames).to_numpy())
    if drift is not None:
        bundle.companions[COMPANION] = drift.tensors()
    return drift is not None


def fit(rows: NDArray[np.float64], patients: NDArray[np.intp]) -> Drift | None:
    """Find where the training frames lie, and the distance that frames of patients who were left out keep.

    The covariance is shrunk towards independent statistics, as if as many further frames as there are statistics had
    been seen in which nothing varies together: few frames leave more of it unknown.

    Args:
        rows: N × ``STATISTICS``, of the training frames.
        patients: N, a number for each patient; patients who share near-duplicate frames have the same.

    Returns:
        None with fewer than ``FEWEST_PATIENTS`` patients.
    """
    names, patient = np.unique(patients, return_inverse=True)
    if len(names) < FEWEST_PATIENTS:
        return None
    parts = patient % _PARTS
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


def main() -> int:
    """The command, see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="its folder, or the name of one that ships along")
    parser.add_argument("study", type=Path, help="the study that it was trained on")
    given = parser.parse_args()
    try:
        folder = find(given.bundle)
        bundle = Bundle.load(folder)
        if not fit_drift(bundle, Study.load(given.study)):
            raise UsageError(f"{folder} was trained on fewer than {FEWEST_PATIENTS} patients.", "Train it on more.")
        bundle.save_description(folder)
    except EdgeFusionError as error:
        say(f"fit_drift: {error}")
        return error.exit_code
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
