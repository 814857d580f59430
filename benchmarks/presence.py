"""Can a bundle tell that there is no nerve? Presence, and Kaggle's measure on a simulated mix, by kind of negative.

edgefusion ingest ../shared/data/kaggle-nerve/train -o runs/kaggle
edgefusion ingest ../shared/data/kaggle-nerve/fullres -o runs/kaggle-fullres
edgefusion phantom -o runs/phantoms --size 185x256
python benchmarks/presence.py BUNDLE runs/kaggle --negatives runs/kaggle-fullres runs/phantoms

Positives are the frames of the first study that show the label, of patients whom the bundle was not trained on;
negatives are cut from these beside the label, and the frames without it of the studies named. Prints Markdown.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from edgefusion.data.study import Study
from edgefusion.evaluation.answer import number
from edgefusion.evaluation.presence import MIX, SENSITIVITY, judge_presence, score
from edgefusion.evaluation.presence_frames import POSITIVE, cuts, negatives, positives
from edgefusion.files import write_text
from edgefusion.inference.predictor import load_bundle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="folder of a bundle, or the name of one that ships along")
    parser.add_argument("study", type=Path, help="study of the positives")
    parser.add_argument("--negatives", type=Path, nargs="*", default=[], help="studies with frames without the label")
    parser.add_argument("--label", default="nerve")
    parser.add_argument("-o", "--output", type=Path, help="file for the scores of every frame, as CSV")
    given = parser.parse_args()
    bundle = load_bundle(given.bundle)
    shown = positives(Study.load(given.study), bundle, given.label)
    size = shown[0].image.shape[:2]
    cut = cuts(shown)
    print(f"{len(cut)} of {len(shown)} positives have room beside the {given.label} for a cut.\n")
    others = [shot for path in given.negatives for shot in negatives(Study.load(path), bundle, given.label, size)]
    frames = score([*shown, *cut, *others], bundle, given.label)
    if given.output:
        write_text(given.output, frames.to_csv(index=False))
    print(as_markdown(frames, judge_presence(frames)))


def as_markdown(frames: pd.DataFrame, judged: pd.DataFrame) -> str:
    """The table, and what any reader must know of it."""
    shown = frames[frames["kind"] == POSITIVE]
    lines = [
        "| negatives | frames (patients) | of patients trained on | rule | AUROC | sensitivity | specificity "
        "| Kaggle's measure, mix |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in judged.to_dict("records"):
        counts = f"{row['negatives']} ({row['negative_patients']})"
        values = [_with_interval(row, key) for key in ("auroc", "sensitivity", "specificity", "kaggle")]
        cells = [row["kind"], counts, str(row["negatives_trained_on"]), row["rule"], *values]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"Positives: {len(shown)} frames of {shown['patient_id'].nunique()} patients, none trained on. A score's "
        f"threshold keeps {SENSITIVITY:.0%} of them. The mix has {MIX:.0%} positives: an empty answer to every frame "
        f"scores {1 - MIX:.3f} there, and a mask in every frame {MIX * shown['dice'].mean():.3f}. Intervals: bootstrap "
        "of patients; none where fewer than 4 patients have negatives. Networks that started from phantoms have seen "
        "frames of that simulator, which the column of patients trained on does not count.",
    ]
    return "\n".join(lines)


def _with_interval(row: Mapping[Any, Any], key: str) -> str:
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    return number(row[key]) + (f" ({number(low)} to {number(high)})" if math.isfinite(low) else "")


if __name__ == "__main__":
    main()
