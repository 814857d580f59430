"""How well a bundle tells presence, as a table: in its card, and by ``benchmarks/presence.py``."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pandas as pd

from edgefusion.bundle import Bundle
from edgefusion.data.study import Study
from edgefusion.evaluation.answer import number
from edgefusion.evaluation.presence import MIX, SENSITIVITY, judge_presence, score
from edgefusion.evaluation.presence_frames import POSITIVE, cuts, negatives, positives


def score_presence(
    bundle: Bundle, study: Study, others: Iterable[Study], label: str, patients: Collection[str] | None = None
) -> pd.DataFrame:
    """Score the frames of a study that show a label, cuts from beside it, and other studies' frames without it.

    Args:
        bundle: The network.
        study: Gives the positives, of patients who are new to the bundle, and the cuts.
        others: Studies whose frames without the label are negatives, each study a kind.
        label: What is there or not.
        patients: Take positives of these patients alone.

    Returns:
        The table of ``presence.score``.
    """
    shown = positives(study, bundle, label, patients)
    size = (shown[0].image.shape[0], shown[0].image.shape[1])
    empty = [shot for other in others for shot in negatives(other, bundle, label, size)]
    return score([*shown, *cuts(shown), *empty], bundle, label)


def summarise_presence(frames: pd.DataFrame) -> dict[str, Any]:
    """What a card says of presence.

    Args:
        frames: Result of ``score_presence``.

    Returns:
        ``positives`` (frames), ``patients`` (of the positives), ``dice`` (their mean, whatever presence says), and
        ``rows`` of ``judge_presence``.
    """
    shown = frames[frames["kind"] == POSITIVE]
    return {
        "positives": len(shown),
        "patients": int(shown["patient_id"].nunique()),
        "dice": float(shown["dice"].mean()),
        "rows": judge_presence(frames).to_dict("records"),
    }


def as_markdown(summary: Mapping[str, Any]) -> list[str]:
    """The lines of a table of ``summarise_presence``, and what any reader must know of it, as a last, long one."""
    lines = [
        "| negatives | frames (patients) | of patients trained on | rule | AUROC | sensitivity | specificity "
        "| Kaggle's measure, mix |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in summary["rows"]:
        counts = f"{row['negatives']} ({row['negative_patients']})"
        values = [_with_interval(row, key) for key in ("auroc", "sensitivity", "specificity", "kaggle")]
        cells = [row["kind"], counts, str(row["negatives_trained_on"]), row["rule"], *values]
        lines.append(f"| {' | '.join(cells)} |")
    return [
        *lines,
        "",
        f"Positives: {summary['positives']} frames of {summary['patients']} patients, none trained on. A score's "
        f"threshold keeps {SENSITIVITY:.0%} of them. The mix has {MIX:.0%} positives: an empty answer to every frame "
        f"scores {1 - MIX:.3f} there, and a mask in every frame {MIX * summary['dice']:.3f}. Intervals: bootstrap "
        "of patients; none where fewer than 4 patients have negatives. Networks that started from phantoms have seen "
        "frames of that simulator, which the column of patients trained on does not count.",
    ]


def _with_interval(row: Mapping[str, Any], key: str) -> str:
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    return number(row[key]) + (f" ({number(low)} to {number(high)})" if math.isfinite(low) else "")
