"""From frames to statements about a model: means, pooled ratios and presence, each with an interval.

On one frame F1 and Dice are the same number. The F1 reported here comes from pixels pooled over all
frames, so large nerves and false alarms on empty frames weigh more in it than in the mean Dice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from edgefusion.errors import DataError
from edgefusion.evaluation.bootstrap import RESAMPLES, interval, patient_counts, ratio, sums_by_patient
from edgefusion.evaluation.metrics import presence_measures

PRESENCE_THRESHOLD = 0.5
"""At or above this presence probability, a frame is said to show the structure, where the table of frames has no column
``presence_threshold`` that says otherwise."""

_NAMES = ("model", "fold", "label", "frame_id", "patient_id")
_NUMBERS = (
    *("presence", "dice", "precision", "recall", "tp", "fp", "fn"),
    *("boundary_f1", "hd95", "surface_distance", "predicted_area", "true_area"),
)

Parts = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Numerator and denominator of a ratio, one value a frame; a frame that does not count is 0 in both."""


@dataclass(frozen=True)
class Measure:
    """One measure over frames, as a ratio of sums, which is what makes resampling patients cheap."""

    key: str
    """Its name in tables."""
    title: str
    """Its name for people."""
    parts: Callable[[pd.DataFrame], Parts]
    """Numerator and denominator of every frame."""
    higher_is_better: bool = True
    """False for distances."""
    averages_frames: bool = True
    """True for a mean over frames, False for a ratio of pooled pixels or frames."""


def _mean(column: str, masked_only: bool = True) -> Callable[[pd.DataFrame], Parts]:
    def parts(frames: pd.DataFrame) -> Parts:
        values = _floats(frames, column)
        counted = ~np.isnan(values)
        if masked_only:
            counted &= _masked(frames)
        return np.where(counted, values, 0.0), counted.astype(np.float64)

    return parts


def _mean_of_patient_means(frames: pd.DataFrame) -> Parts:
    values, counted = _mean("dice")(frames)
    of_patient = pd.Series(counted).groupby(frames["patient_id"].to_numpy()).transform("sum").to_numpy()
    weight = np.where(counted > 0, ratio(counted, of_patient), 0.0)
    return values * weight, weight


def _pooled(numerator: dict[str, float], denominator: dict[str, float]) -> Callable[[pd.DataFrame], Parts]:
    def weighted(frames: pd.DataFrame, weights: dict[str, float]) -> NDArray[np.float64]:
        return frames[list(weights)].to_numpy(dtype=np.float64) @ np.array(list(weights.values()), dtype=np.float64)

    return lambda frames: (weighted(frames, numerator), weighted(frames, denominator))


def _share_of_frames(with_nerve: bool) -> Callable[[pd.DataFrame], Parts]:
    def parts(frames: pd.DataFrame) -> Parts:
        own = "presence_threshold" in frames
        said = _floats(frames, "presence") >= (_floats(frames, "presence_threshold") if own else PRESENCE_THRESHOLD)
        counted = _masked(frames) == with_nerve
        return (counted & (said == with_nerve)).astype(np.float64), counted.astype(np.float64)

    return parts


MEASURES: tuple[Measure, ...] = (
    Measure("dice_masked", "Dice, frames with a mask", _mean("dice")),
    Measure("dice_all", "Dice, all frames", _mean("dice", masked_only=False)),
    Measure("dice_patients", "Dice, mean of patients", _mean_of_patient_means, averages_frames=False),
    Measure("precision", "Precision", _mean("precision")),
    Measure("recall", "Recall", _mean("recall")),
    Measure("pooled_precision", "Pooled precision", _pooled({"tp": 1}, {"tp": 1, "fp": 1}), averages_frames=False),
    Measure("pooled_recall", "Pooled recall", _pooled({"tp": 1}, {"tp": 1, "fn": 1}), averages_frames=False),
    Measure("pooled_f1", "Pooled F1", _pooled({"tp": 2}, {"tp": 2, "fp": 1, "fn": 1}), averages_frames=False),
    Measure("boundary_f1", "Boundary F1", _mean("boundary_f1")),
    Measure("hd95", "HD95", _mean("hd95"), higher_is_better=False),
    Measure("surface_distance", "Surface distance", _mean("surface_distance"), higher_is_better=False),
    Measure("sensitivity", "Sensitivity", _share_of_frames(with_nerve=True), averages_frames=False),
    Measure("specificity", "Specificity", _share_of_frames(with_nerve=False), averages_frames=False),
)
"""Every measure but AUROC, which is no ratio of sums, and the count of missed frames, which has no interval."""


def read_frames(path: Path) -> pd.DataFrame:
    """Read a run's ``frames.csv``: one row per model, frame and label.

    Names stay text, so that a patient called 007 or NA is still that patient.

    Raises:
        DataError: If the file is missing, unreadable, lacks columns or holds a frame twice.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing.", "Run `edgefusion compare` to the end first.")
    try:
        frames = pd.read_csv(
            path,
            dtype=dict.fromkeys(_NAMES, str),
            keep_default_na=False,
            na_values={column: ["", "nan", "NaN"] for column in _NUMBERS},
        )
    except (ValueError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a table of frames: {error}.", "Run `edgefusion compare` again.") from error
    return check_frames(frames)


def check_frames(frames: pd.DataFrame) -> pd.DataFrame:
    """Return ``frames`` if it is a table of measured frames.

    Raises:
        DataError: If it is empty, lacks columns, scores a model twice in one fold on one frame and label, or judges
            some frames in more folds than others, which would weigh more.
    """
    missing = [column for column in (*_NAMES, *_NUMBERS) if column not in frames]
    if missing:
        raise DataError(f"The table of frames lacks the columns {', '.join(missing)}.", "Measure the frames again.")
    if frames.empty:
        raise DataError("The table of frames is empty.", "Check that the study has labelled frames to judge.")
    keys = ["model", "label", "fold", "frame_id"]
    if frames.duplicated(keys).any():
        model, label, _, frame = frames.loc[frames.duplicated(keys), keys].iloc[0]
        raise DataError(f"{model} is scored more than once on {label} in frame {frame}.", "Judge each frame once.")
    times = frames.groupby(["model", "label", "frame_id"])["fold"].transform("size")
    uneven = times < times.groupby([frames["model"], frames["label"]]).transform("max")
    if uneven.any():
        model, label, _, frame = frames.loc[uneven, keys].iloc[0]
        raise DataError(
            f"{model} is scored in fewer folds on {label} in frame {frame} than in other frames.",
            "Judge each frame in one fold, or all of them once with every seed.",
        )
    return frames


def summarise(frames: pd.DataFrame, resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """Sum up every model and label, with patient-clustered bootstrap 95 % intervals.

    Where every frame was judged in several folds (a training repeated with other seeds), the predictions of all seeds
    are taken together: means are over all of them, pooled measures pool their pixels, AUROC ranks them in one list, and
    intervals draw a patient with all of them. Frames are still counted once.

    - ``dice_all`` averages over all frames, empty against empty counting 1 (Kaggle's measure);
      ``dice_masked`` over frames with a true mask; ``dice_patients`` averages those within each
      patient first.
    - ``precision``, ``recall`` and ``boundary_f1`` are means over frames with a true mask; where the
      prediction is empty, precision is undefined and left out, boundary F1 and recall are 0.
    - ``pooled_*`` come from pixels summed over all frames.
    - ``hd95`` and ``surface_distance`` are means over frames with a true mask that was not missed;
      ``n_missed`` counts those with an empty prediction, on average over the seeds.
    - ``sensitivity``, ``specificity`` (at ``PRESENCE_THRESHOLD``) and ``auroc`` judge the presence probability.

    Args:
        frames: One row per model, frame and label, see ``read_frames``.
        resamples: How many times the patients are drawn.
        seed: Seeds the draws, which are the same for all models.

    Returns:
        Columns model, label, measure, value, low, high, n_frames (distinct ones that count), n_patients
        (that contribute).

    Raises:
        DataError: See ``check_frames``.
    """
    check_frames(frames)
    rows: list[dict[str, Any]] = []
    for label, of_label in frames.groupby("label", sort=False):
        patients = np.unique(of_label["patient_id"])
        counts = patient_counts(len(patients), resamples, seed)
        for model, of_model in of_label.groupby("model", sort=False):
            patient = np.searchsorted(patients, of_model["patient_id"].to_numpy())
            for row in (*_ratios(of_model, patient, counts), _auroc(of_model, patient, counts), _missed(of_model)):
                rows.append({"model": model, "label": label, **row})
    return pd.DataFrame(rows)


def _ratios(frames: pd.DataFrame, patient: NDArray[np.intp], counts: NDArray[np.float64]) -> list[dict[str, Any]]:
    rows = []
    for measure in MEASURES:
        numerator, denominator = measure.parts(frames)
        above = sums_by_patient(numerator, patient, counts.shape[1])
        below = sums_by_patient(denominator, patient, counts.shape[1])
        contributing = int(np.count_nonzero(below))
        low, high = interval(ratio(counts @ above, counts @ below), contributing)
        rows.append(
            {
                "measure": measure.key,
                "value": float(ratio(above.sum(keepdims=True), below.sum(keepdims=True))[0]),
                "low": low,
                "high": high,
                "n_frames": frames["frame_id"][denominator > 0].nunique(),
                "n_patients": contributing,
            }
        )
    return rows


def _auroc(frames: pd.DataFrame, patient: NDArray[np.intp], counts: NDArray[np.float64]) -> dict[str, Any]:
    """AUROC is the share of (positive, negative) pairs in the right order: a ratio of sums over pairs of patients."""
    presence, positive = _floats(frames, "presence"), _masked(frames)
    patients = counts.shape[1]
    positives = sums_by_patient(positive.astype(np.float64), patient, patients)
    negatives = sums_by_patient((~positive).astype(np.float64), patient, patients)
    ordered = np.zeros((patients, patients))
    for other in np.flatnonzero(negatives):
        scores = np.sort(presence[~positive & (patient == other)])
        # A tie is half in the right order.
        beaten = (np.searchsorted(scores, presence, "left") + np.searchsorted(scores, presence, "right")) / 2
        ordered[:, other] = sums_by_patient(np.where(positive, beaten, 0.0), patient, patients)
    draws = ratio(((counts @ ordered) * counts).sum(axis=1), (counts @ positives) * (counts @ negatives))
    contributing = int(min(np.count_nonzero(positives), np.count_nonzero(negatives)))
    low, high = interval(draws, contributing)
    value = presence_measures(presence, positive, PRESENCE_THRESHOLD)["auroc"]
    return {
        "measure": "auroc",
        "value": value,
        "low": low,
        "high": high,
        "n_frames": frames["frame_id"].nunique(),
        "n_patients": contributing,
    }


def _missed(frames: pd.DataFrame) -> dict[str, Any]:
    masked = frames[_masked(frames)]
    seeds = len(masked) / max(masked["frame_id"].nunique(), 1)
    return {
        "measure": "n_missed",
        "value": float((masked["predicted_area"] == 0).sum()) / max(seeds, 1),
        "low": np.nan,
        "high": np.nan,
        "n_frames": masked["frame_id"].nunique(),
        "n_patients": int(masked["patient_id"].nunique()),
    }


def _floats(frames: pd.DataFrame, column: str) -> NDArray[np.float64]:
    return frames[column].to_numpy(dtype=np.float64)


def _masked(frames: pd.DataFrame) -> NDArray[np.bool_]:
    return _floats(frames, "true_area") > 0
