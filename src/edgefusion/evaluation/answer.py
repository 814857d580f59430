"""What the numbers say, in words: the answer first, the caveats, and a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from edgefusion.evaluation.compare import PRIMARY, SIGNIFICANCE, best_size
from edgefusion.models.names import TITLES

_FEW_PATIENTS = 20
_MINUS, _DASH = "−", "–"


def title_of(model: str) -> str:
    """A model's name for people."""
    return TITLES.get(model, model)


def number(value: float, digits: int = 3) -> str:
    """A number with a true minus sign, or a dash where there is none."""
    return _DASH if math.isnan(value) else f"{value:.{digits}f}".replace("-", _MINUS)


def mean_count(value: float) -> str:
    """How many of something, which is no whole number where it is a mean over seeds."""
    return number(value, 0 if value.is_integer() else 1)


def between(low: float, high: float, digits: int = 3, scale: float = 1.0) -> str:
    """An interval as "0.712 to 0.781", or nothing where there is none."""
    return "" if math.isnan(low) else f"{number(scale * low, digits)} to {number(scale * high, digits)}"


def span(low: float, high: float, digits: int = 3) -> str:
    """An interval that cannot be negative in as little room as possible, "0.712–0.781"; nothing where there is none."""
    return between(low, high, digits).replace(" to ", _DASH)


def counted(number_of: int, noun: str) -> str:
    """ "1 frame", "1,958 frames"."""
    return f"{number_of:,} {noun}" + ("" if number_of == 1 else "s")


def p_text(p: float) -> str:
    """A p-value with as many digits as it deserves."""
    if math.isnan(p):
        return f"p {_DASH}"
    digits = f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
    return "p < .001" if p < 0.001 else f"p = {digits.removeprefix('0')}"


def answer(summary: pd.DataFrame, comparisons: pd.DataFrame, reference: str, label: str) -> str:
    """Say in one sentence whether the reference is better than the best of the others on one label.

    Of two sizes of a network, only the better counts.

    Args:
        summary: Result of ``summarise``.
        comparisons: Result of ``compare_models``.
        reference: The model that the question is about.
        label: What was segmented.
    """
    rows = summary[(summary["label"] == label) & (summary["measure"] == PRIMARY)].to_dict("records")
    dice = {str(row["model"]): row for row in rows}
    own = dice[reference]
    if math.isnan(own["value"]):
        return f"No judged frame shows the {label}, so the networks cannot be compared on it."
    where = f"on {counted(own['n_frames'], 'frame')} of {counted(own['n_patients'], 'patient')} that show the {label}"
    rivals = [model for model in best_size(summary, label) if model != reference]
    if not rivals:
        interval = between(own["low"], own["high"])
        certainty = f" (95 % interval {interval})" if interval else ""
        return f"{title_of(reference)} reaches a Dice of {number(own['value'])}{certainty} {where}."
    rival = max(rivals, key=lambda model: float(dice[model]["value"]))
    pairs = comparisons[(comparisons["label"] == label) & (comparisons["measure"] == PRIMARY)]
    (pair,) = pairs[pairs["other"] == rival].to_dict("records")
    points = 100 * pair["difference"]
    order = "above" if points > 0 else "below"
    score = f"{number(abs(points), 1)} Dice points {order}" if round(abs(points), 1) else "the same Dice as"
    others = "the best of the others" if len(rivals) > 1 else "the other network"
    interval = between(pair["low"], pair["high"], 1, 100)
    certainty = (
        f"95 % interval {interval}; {p_text(pair['p_holm'])}" if interval else "too few patients for an interval"
    )
    many = f" after Holm's correction for {len(pairs)} comparisons" if interval and len(pairs) > 1 else ""
    return (
        f"{title_of(reference)} scores {score} {title_of(rival)}, {others}, "
        f"{where} ({certainty}{many}): {_verdict(reference, rival, pair)}."
    )


def _verdict(reference: str, rival: str, pair: Mapping[Any, Any]) -> str:
    if pair["better"]:
        return f"{title_of(reference if pair['better'] == reference else rival)} is better"
    if pair["p"] < SIGNIFICANCE:
        return "taken alone that would be a difference, but among so many comparisons the two are not distinguishable"
    return "the two are not distinguishable"


def caveats(summary: pd.DataFrame, config: Mapping[str, Any], *, folds: int, tidy: bool, origin: str = "") -> list[str]:
    """What a reader must know before believing the numbers.

    Args:
        summary: Result of ``summarise``.
        config: The run's settings.
        folds: How many folds were judged.
        tidy: Whether every judged patient was kept out of the training that judged it.
        origin: Where the study's frames come from.
    """
    patients = int(summary.loc[summary["measure"] == "dice_all", "n_patients"].max())
    training = config.get("train", {})
    notes = []
    if not tidy:
        notes.append("Judged frames do not match the split: the scores may be of patients that were trained on.")
    if patients < _FEW_PATIENTS:
        notes.append(
            f"Only {counted(patients, 'patient')} could be judged. The intervals allow for that (Student's quantiles), "
            "but so few may not be like the patients to come, and a p-value near .05 is weak evidence."
        )
    seeds = list(config.get("seeds") or [training.get("seed", 0)])
    if len(seeds) == 1:
        notes.append(
            f"Every network was trained once a fold, with seed {seeds[0]}. The intervals cover the choice of patients, "
            "not the luck of training: with another seed, every score would be a little different."
        )
    else:
        notes.append(
            f"Every network was trained {len(seeds)} times a fold, with the seeds {', '.join(map(str, seeds))}; every "
            "score is over all of them. The intervals cover the choice of patients, not that of seeds."
        )
    if config.get("pretrained"):
        notes.append(
            "Every network started from its own weights of one earlier run. All seeds share that start, so their "
            "spread leaves out the luck of pretraining."
        )
    if training.get("patience", 0):
        notes.append("The epoch that was kept was chosen by Dice on the judged patients, so all scores are flattered.")
    else:
        notes.append("The last epoch was kept; no epoch was chosen on the judged patients.")
    if left_out := config.get("split", {}).get("without_patients"):
        notes.append(f"{counted(len(left_out), 'patient')} took no part: neither trained on nor judged.")
    if folds > 1:
        notes.append(
            "The folds' networks share most of their training patients; intervals take patients as independent."
        )
    if math.isnan(summary.loc[summary["measure"] == "specificity", "value"].max()):
        notes.append("Every judged frame has a mask: nothing can be said about false alarms on frames without one.")
    if "phantom" in origin.lower():
        notes.append("The frames are simulated: scores on phantoms say that the program works, not how it sees nerves.")
    notes.append(
        "The claim is made on one measure, Dice over frames with a mask. All others are secondary: their p-values are "
        "corrected for the number of networks, not for the number of measures."
    )
    return notes


def text_table(summary: Mapping[str, Any]) -> str:
    """The result as plain text for a terminal, about 100 columns wide.

    Args:
        summary: What ``report.write_report`` writes as ``summary.json``.
    """
    measures = pd.DataFrame(summary["measures"]).astype({"value": float, "low": float, "high": float})
    pairs = pd.DataFrame(summary["comparisons"])
    unit = summary["distance_unit"]
    lines: list[str] = []
    for label, sentence in summary["answers"].items():
        of_label = measures[measures["label"] == label]
        values = {(row["model"], row["measure"]): row for row in of_label.to_dict("records")}
        head = ["Dice, frames with a mask", "all frames", "precision", "recall", "border F1", f"HD95 {unit}"]
        rows = [["", *head, "" if pairs.empty else "reference minus it"]]
        for model in summary["models"]:
            dice = values[model, PRIMARY]
            interval = between(dice["low"], dice["high"])
            means = [values[model, key]["value"] for key in ("dice_all", "precision", "recall", "boundary_f1")]
            rows.append(
                [
                    title_of(model),
                    f"{number(dice['value'])} ({interval})" if interval else number(dice["value"]),
                    *map(number, means),
                    number(values[model, "hd95"]["value"], 1),
                    _difference_text(pairs, label, model),
                ]
            )
        lines += [f"{label}: {sentence}", "", *_aligned(rows), ""]
    return "\n".join(lines)


def _difference_text(pairs: pd.DataFrame, label: str, model: str) -> str:
    if pairs.empty:
        return ""
    pair = pairs[(pairs["label"] == label) & (pairs["other"] == model) & (pairs["measure"] == PRIMARY)]
    if pair.empty:
        return "(reference)"
    difference, p_holm = pair[["difference", "p_holm"]].to_numpy(dtype=np.float64)[0]
    return f"{number(100 * difference, 1)} points, {p_text(p_holm)}"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for name, *values in rows:
        padded = [value.rjust(width) for value, width in zip(values, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]).rstrip())
    return lines
