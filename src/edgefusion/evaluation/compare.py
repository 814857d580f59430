"""Is one model better than another? Paired tests on the same frames, with the patient as the unit that is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from edgefusion.errors import DataError, UsageError
from edgefusion.evaluation.aggregate import MEASURES, Measure, check_frames
from edgefusion.evaluation.bootstrap import RESAMPLES, difference_test, patient_counts, ratio, sums_by_patient

PRIMARY = "dice_masked"
"""The measure that the headline claim is made on; all others are secondary."""

COMPARED = (PRIMARY, "dice_all", "precision", "pooled_f1", "boundary_f1", "hd95")
"""Keys of the measures that models are compared by."""

SIGNIFICANCE = 0.05
"""Below it, a Holm-corrected p-value counts as a difference."""

_MATCHED = "-matched"


def compare_models(frames: pd.DataFrame, reference: str, resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """Test the reference against every other model, for every label and measure.

    The same patients are drawn for both models of a pair. A measure that averages frames does so over
    the frames where both models have a value (precision and HD95 are undefined where a prediction is
    empty), so its two values may differ a little from those of ``summarise``. Seeds are paired one by one
    and taken together, as in ``summarise``. P-values are corrected by
    Holm's method across the other models, within each label and measure.

    Args:
        frames: One row per model, frame and label, see ``aggregate.read_frames``.
        reference: The model that all others are compared with.
        resamples: How many times the patients are drawn.
        seed: Seeds the draws.

    Returns:
        Columns label, measure, reference, other, reference_value, other_value, difference (reference
        minus other), low, high (95 %), p, p_holm, n_frames, n_patients, better (name of the better model
        where p_holm < .05, otherwise empty).

    Raises:
        UsageError: If the reference has no rows.
        DataError: If the models were not all judged on the same frames against the same masks.
    """
    check_frames(frames)
    models = list(frames["model"].unique())
    if reference not in models:
        raise UsageError(f"{reference} is not among the compared models.", f"There are: {', '.join(models)}.")
    measures = [measure for measure in MEASURES if measure.key in COMPARED]
    columns = ["label", "measure", "reference", "other", "reference_value", "other_value", "difference"]
    columns += ["low", "high", "p", "p_holm", "n_frames", "n_patients", "better"]
    rows: list[dict[str, Any]] = []
    for label, of_label in frames.groupby("label", sort=False):
        tables = _aligned(of_label, models, str(label))
        names, patient = np.unique(tables[reference]["patient_id"].to_numpy(), return_inverse=True)
        counts = patient_counts(len(names), resamples, seed)
        for measure in measures:
            pairs = [
                {
                    "label": label,
                    "measure": measure.key,
                    "reference": reference,
                    "other": other,
                    **_pair(tables[reference], tables[other], measure, patient, counts),
                }
                for other in models
                if other != reference
            ]
            corrected = holm([pair["p"] for pair in pairs])
            for pair, p_holm in zip(pairs, corrected, strict=True):
                reference_wins = (pair["difference"] > 0) == measure.higher_is_better
                winner = reference if reference_wins else pair["other"]
                rows.append({**pair, "p_holm": p_holm, "better": winner if p_holm < SIGNIFICANCE else ""})
    return pd.DataFrame(rows, columns=columns)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number by Holm's step-down method (1979); NaN stays NaN and does not count."""
    p = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(len(p), np.nan)
    order = np.argsort(p)[: int(np.count_nonzero(~np.isnan(p)))]
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in corrected]


def family(model: str) -> str:
    """The network that a model is one size of: ``unet`` for both ``unet`` and ``unet-matched``."""
    return model.removesuffix(_MATCHED)


def best_size(summary: pd.DataFrame, label: str, measure: str = PRIMARY) -> list[str]:
    """Keep the better size of every network: a claim counts only against that.

    Args:
        summary: Result of ``aggregate.summarise``.
        label: The label that is judged.
        measure: The measure that decides; higher is better.

    Returns:
        One model a family, in the order in which families appear; the first size where both are equal
        or undefined.
    """
    of_label = summary[(summary["label"] == label) & (summary["measure"] == measure)]
    best: dict[str, tuple[float, str]] = {}
    for model, value in zip(of_label["model"], of_label["value"].fillna(-np.inf), strict=True):
        held = best.setdefault(family(model), (value, model))
        if value > held[0]:
            best[family(model)] = (value, model)
    return [model for _, model in best.values()]


def _aligned(frames: pd.DataFrame, models: Sequence[str], label: str) -> dict[str, pd.DataFrame]:
    """Every model's rows in the same order of frames."""
    keys = ["fold", "frame_id"]
    tables = {model: frames[frames["model"] == model].sort_values(keys) for model in models}
    first = tables[models[0]]
    judged = {model: set(table[keys].itertuples(index=False, name=None)) for model, table in tables.items()}
    for model, table in tables.items():
        unshared = judged[models[0]] ^ judged[model]
        if unshared:
            raise DataError(
                f"{models[0]} and {model} were not judged on the same frames of {label}: "
                f"{len(unshared)} frames have only one of them, such as {min(unshared)[1]} in {min(unshared)[0]}.",
                "Judge all models on the same frames, or leave one out.",
            )
        for column in ("patient_id", "true_area"):
            if (first[column].to_numpy() != table[column].to_numpy()).any():
                raise DataError(f"{models[0]} and {model} disagree on {column} of {label}.", "Judge them again.")
    return tables


def _pair(
    reference: pd.DataFrame,
    other: pd.DataFrame,
    measure: Measure,
    patient: NDArray[np.intp],
    counts: NDArray[np.float64],
) -> dict[str, Any]:
    parts = [measure.parts(reference), measure.parts(other)]
    counted = (parts[0][1] > 0) | (parts[1][1] > 0)
    if measure.averages_frames:
        counted = (parts[0][1] > 0) & (parts[1][1] > 0)
    draws, values = [], []
    for numerator, denominator in parts:
        above = sums_by_patient(np.where(counted, numerator, 0.0), patient, counts.shape[1])
        below = sums_by_patient(np.where(counted, denominator, 0.0), patient, counts.shape[1])
        draws.append(ratio(counts @ above, counts @ below))
        values.append(float(ratio(above.sum(keepdims=True), below.sum(keepdims=True))[0]))
    patients = len(np.unique(patient[counted]))
    difference = values[0] - values[1]
    low, high, p = difference_test(difference, draws[0] - draws[1], patients)
    return {
        "reference_value": values[0],
        "other_value": values[1],
        "difference": difference,
        "low": low,
        "high": high,
        "p": p,
        "n_frames": reference["frame_id"][counted].nunique(),
        "n_patients": patients,
    }
