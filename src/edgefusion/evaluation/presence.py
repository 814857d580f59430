"""Whether a network can tell that a label is in the frame at all, judged on frames without it.

A study in which every frame shows the nerve teaches nothing about its absence and cannot judge it either. Stand-ins
can: frames of other studies, phantoms, and cuts from real frames beside the nerve. None is like the frames of a real
examination without a nerve, each in its own way, so every kind is judged apart and never pooled.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from edgefusion.bundle import Bundle
from edgefusion.evaluation.aggregate import summarise
from edgefusion.evaluation.bootstrap import RESAMPLES, interval, patient_counts, ratio, sums_by_patient
from edgefusion.evaluation.metrics import frame_measures
from edgefusion.evaluation.presence_frames import POSITIVE, Shot
from edgefusion.inference.predictor import Predictor

MIX = 0.41
"""Share of frames with a mask in the training set of Kaggle's competition (2,323 of 5,635)."""

SENSITIVITY = 0.95
"""Share of positives that each score's threshold keeps: with it, scores of different units can be compared."""

SCORES = ("head", "maximum", "area")
"""Candidates for a presence score: what the presence head says; the greatest probability of a pixel; and the share of
the frame that is at or above the mask's threshold."""

AS_USED = "as used"
"""The rule of ``Predictor``: a frame shows the label if its predicted mask is not empty."""


def score(shots: Iterable[Shot], bundle: Bundle, label: str) -> pd.DataFrame:
    """Predict frames and note what could tell whether the label is there.

    Returns:
        One row a frame: ``kind``, ``patient_id``, ``trained_on``; the scores ``head`` (NaN without a presence head),
        ``maximum`` and ``area``, all in [0, 1]; ``dice`` of the mask at the mask's threshold, whatever the head says;
        ``used``, whether the mask that the bundle gives is not empty, and ``used_dice``, that mask's Dice.
    """
    predictor, place = Predictor(bundle), bundle.labels.index(label)
    has_head = has_presence_head(bundle)
    rows = []
    for shot in shots:
        prediction = predictor.predict(shot.image)
        probability = prediction.probability[place]
        found, used = probability >= bundle.thresholds["mask"], prediction.mask == place + 1
        rows.append(
            {
                "kind": shot.kind,
                "patient_id": shot.patient_id,
                "trained_on": shot.trained_on,
                "head": prediction.presence[place] if has_head else np.nan,
                "maximum": float(probability.max()),
                "area": float(found.mean()),
                "dice": frame_measures(found, shot.truth)["dice"],
                "used": bool(used.any()),
                "used_dice": frame_measures(used, shot.truth)["dice"],
            }
        )
    return pd.DataFrame(rows)


def judge_presence(frames: pd.DataFrame) -> pd.DataFrame:
    """Judge every rule on every kind of negatives, always against all positives.

    A rule is ``AS_USED``, or one of ``SCORES`` at the threshold that keeps 95 % of the positives; below it, a frame's
    mask is emptied. That threshold is taken from the judged positives, and from no negative.

    Args:
        frames: Result of ``score``.

    Returns:
        A row a kind and rule: ``kind``, ``negatives`` (frames), ``negative_patients``, ``negatives_trained_on`` (frames
        of patients that were trained on), ``rule``, ``threshold``, and with patient-clustered bootstrap 95 % intervals
        (columns with ``_low`` and ``_high``) ``auroc`` (NaN for ``AS_USED``), ``sensitivity``, ``specificity`` and
        ``kaggle``: the mean Dice, empty against empty counting 1, if 41 % of the frames were positives.
    """
    positive = frames[frames["kind"] == POSITIVE]
    rules = [AS_USED, *(name for name in SCORES if frames[name].notna().all())]
    rows = []
    for kind, negative in frames[frames["kind"] != POSITIVE].groupby("kind", sort=False):
        for rule in rules:
            both = pd.concat([positive, negative], ignore_index=True)
            values = both["used" if rule == AS_USED else rule].astype(float).to_numpy()
            of_positives = values[: len(positive)]
            threshold = 1.0 if rule == AS_USED else presence_threshold(of_positives, SENSITIVITY)
            dice = both["used_dice" if rule == AS_USED else "dice"].to_numpy()
            is_positive = np.arange(len(both)) < len(positive)
            dice = np.where(values >= threshold, dice, np.where(is_positive, 0.0, 1.0))
            facts = {
                "kind": kind,
                "negatives": len(negative),
                "negative_patients": negative["patient_id"].nunique(),
                "negatives_trained_on": int(negative["trained_on"].sum()),
                "rule": rule,
                "threshold": np.nan if rule == AS_USED else threshold,
            }
            patient = both["patient_id"].to_numpy()
            measures = _measures(values - threshold, is_positive, patient) | _kaggle(dice, is_positive, patient)
            if rule == AS_USED:
                measures |= dict.fromkeys(("auroc", "auroc_low", "auroc_high"), np.nan)
            rows.append(facts | measures)
    return pd.DataFrame(rows)


def presence_threshold(of_positives: NDArray[np.floating[Any]], sensitivity: float) -> float:
    """The highest threshold that keeps at least a share of the frames that show the label.

    The rule looks at positives alone: no negatives are like those of a real examination, so none may say where the
    threshold lies.

    Args:
        of_positives: N scores of frames that show the label, at least one.
        sensitivity: The share of them that must be at or above the threshold, in [0, 1].
    """
    return float(np.quantile(of_positives, 1 - sensitivity, method="lower"))


def has_presence_head(bundle: Bundle) -> bool:
    """Whether presence is an output of the network's own; else it is the highest probability in the frame."""
    recipe = bundle.recipe
    with torch.no_grad():
        output = bundle.model.eval()(torch.zeros(1, len(recipe.channels), recipe.height, recipe.width))
    return output.presence is not None


def _measures(
    margin: NDArray[np.floating[Any]], is_positive: NDArray[np.bool_], patient: NDArray[Any]
) -> dict[str, float]:
    """AUROC, sensitivity and specificity of N scores minus their threshold, by ``summarise``, which decides at 0.5."""
    missing = dict.fromkeys(("precision", "recall", "boundary_f1", "hd95", "surface_distance", "dice"), np.nan)
    table = pd.DataFrame(
        {
            **{"model": "", "fold": "", "label": "", "frame_id": np.arange(len(margin)), "patient_id": patient},
            **{"presence": margin + 0.5, "true_area": is_positive.astype(int), "predicted_area": 0},
            **{**missing, "tp": 0, "fp": 0, "fn": 0},
        }
    )
    rows = summarise(table).set_index("measure")
    return {
        f"{key}{ending}": float(rows.loc[key, column])  # type: ignore[arg-type]
        for key in ("auroc", "sensitivity", "specificity")
        for ending, column in (("", "value"), ("_low", "low"), ("_high", "high"))
    }


def _kaggle(dice: NDArray[np.float64], is_positive: NDArray[np.bool_], patient: NDArray[Any]) -> dict[str, float]:
    """Mean Dice of positives and of negatives, weighed as in the mix, with its interval."""
    names, place = np.unique(patient, return_inverse=True)
    counts = patient_counts(len(names), RESAMPLES, seed=0)
    value, draws, contributing = 0.0, np.zeros(RESAMPLES), len(names)
    for chosen, share in ((is_positive, MIX), (~is_positive, 1 - MIX)):
        above = sums_by_patient(np.where(chosen, dice, 0.0), place, len(names))
        below = sums_by_patient(chosen.astype(np.float64), place, len(names))
        value += share * float(above.sum() / below.sum())
        draws += share * ratio(counts @ above, counts @ below)
        contributing = min(contributing, int(np.count_nonzero(below)))
    low, high = interval(draws, contributing)
    return {"kaggle": value, "kaggle_low": low, "kaggle_high": high}
