"""Fitting temperatures on patients who are new to a network, and measuring on others what they do.

Every patient's calibration is measured with the temperature that the other patients chose (leave one patient out); the
temperature that is kept comes from all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from edgefusion.bundle import Bundle
from edgefusion.data.study import Study
from edgefusion.evaluation.calibration import REGIONS, Reliability, border_band
from edgefusion.evaluation.evaluate import predict_frames
from edgefusion.progress import track

FITTED_ON = "all pixels"
"""The one of ``REGIONS`` whose pixels choose the temperature. A reader does not know where the true border lies, so a
probability has to hold for every pixel: one fitted to the band alone claims a few per cent of nerve all over the frame.
"""

_SPAN, _BINS = 16.0, 3200
_CENTRES = (np.arange(_BINS) + 0.5) * (2 * _SPAN / _BINS) - _SPAN
_LEAST, _MOST = 0.2, 5.0


class LogitCounts:
    """Pixels counted by predicted logit, in bins of 0.01, and by truth: all that fitting and measuring needs."""

    def __init__(self, counts: NDArray[np.float64] | None = None) -> None:
        self.counts = np.zeros((2, _BINS)) if counts is None else counts

    def add(self, probability: NDArray[Any], truth: NDArray[np.bool_]) -> None:
        """Count N pixels: their predicted probability in [0, 1], and whether the label truly is there."""
        logits = np.clip(logit(probability.astype(np.float64)), -_SPAN, _SPAN)
        place = np.minimum(((logits + _SPAN) * (_BINS / (2 * _SPAN))).astype(np.intp), _BINS - 1)
        for value in (0, 1):
            self.counts[value] += np.bincount(place[truth == value], minlength=_BINS)

    def loss(self, temperature: float) -> float:
        """Mean negative log-likelihood a pixel."""
        scaled = _CENTRES / temperature
        costs = np.logaddexp(0, np.stack([scaled, -scaled]))
        return float((self.counts * costs).sum() / self.counts.sum())

    def fit(self) -> float:
        """The temperature, from 0.2 to 5, with the least loss; 1 where there is no pixel."""
        if not self.counts.any():
            return 1.0
        bounds = (np.log(_LEAST), np.log(_MOST))
        found = minimize_scalar(lambda value: self.loss(float(np.exp(value))), bounds=bounds, method="bounded")
        return round(float(np.exp(found.x)), 3)

    def reliability(self, temperature: float, into: Reliability) -> None:
        """Count the pixels again, by what their probability is with a temperature."""
        probability = expit(_CENTRES / temperature)
        for value, counts in enumerate(self.counts):
            into.add(probability, np.full(_BINS, bool(value)), counts)

    @staticmethod
    def total(parts: Iterable[LogitCounts]) -> LogitCounts:
        """All pixels of some counts."""
        return LogitCounts(np.sum([part.counts for part in parts], axis=0, initial=0.0))


def calibrate(bundle: Bundle, study: Study, frame_ids: list[str]) -> dict[str, dict[str, Any]]:
    """Fit a temperature for each label of a bundle, and measure what it does.

    Args:
        bundle: The network; its own temperatures are not looked at, and not changed.
        study: A study with the same labels.
        frame_ids: Labelled frames of patients who are new to it.

    Returns:
        Of each label ``temperature`` (1 with a single patient, on whom nothing could be measured apart), ``patients``,
        ``span`` (the least and the greatest one that all patients but one would choose), and ``before`` and ``after``:
        of each of ``REGIONS`` ``Reliability.summary`` and ``loss``, the mean negative log-likelihood of a pixel; after,
        each patient has the temperature of the others.
    """
    counts = _count(bundle, study, frame_ids)
    return {label: _fit([patient[label] for patient in counts.values()]) for label in study.labels}


def _count(bundle: Bundle, study: Study, frame_ids: list[str]) -> dict[str, dict[str, dict[str, LogitCounts]]]:
    """Of every patient, label and region the pixels."""
    plain = Bundle(**{**vars(bundle), "temperatures": {}})
    patients = study.frames.set_index("frame_id")["patient_id"]
    counts: dict[str, dict[str, dict[str, LogitCounts]]] = {}
    predictions = predict_frames(study, plain, frame_ids)
    for frame_id, prediction in zip(track(frame_ids, "Calibrating", len(frame_ids)), predictions, strict=True):
        fresh = {label: {region: LogitCounts() for region in REGIONS} for label in study.labels}
        patient = counts.setdefault(str(patients[frame_id]), fresh)
        mask = np.asarray(study.mask(frame_id))
        for value, label in enumerate(study.labels, start=1):
            probability, truth = prediction.probability[value - 1], mask == value
            band = border_band(prediction.mask == value, truth)
            patient[label]["all pixels"].add(probability.ravel(), truth.ravel())
            patient[label]["border band"].add(probability[band], truth[band])
    return counts


def _fit(patients: list[dict[str, LogitCounts]]) -> dict[str, Any]:
    alone = len(patients) == 1
    without = [
        1.0 if alone else LogitCounts.total(other[FITTED_ON] for other in patients if other is not patient).fit()
        for patient in patients
    ]
    return {
        "temperature": 1.0 if alone else LogitCounts.total(patient[FITTED_ON] for patient in patients).fit(),
        "patients": len(patients),
        "span": [min(without), max(without)],
        "before": _measured(patients, [1.0] * len(patients)),
        "after": _measured(patients, without),
    }


def _measured(patients: list[dict[str, LogitCounts]], temperatures: list[float]) -> dict[str, dict[str, Any]]:
    measured = {}
    for region in REGIONS:
        reliability, loss, pixels = Reliability(), 0.0, 0.0
        for patient, temperature in zip(patients, temperatures, strict=True):
            counted = patient[region]
            if not counted.counts.any():
                continue
            counted.reliability(temperature, reliability)
            loss += counted.loss(temperature) * counted.counts.sum()
            pixels += counted.counts.sum()
        measured[region] = {**reliability.summary(), "loss": loss / pixels if pixels else float("nan")}
    return measured
