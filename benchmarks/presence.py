"""Can a bundle tell that there is no nerve? Presence, and Kaggle's measure on a simulated mix, by kind of negative.

edgefusion ingest ../shared/data/kaggle-nerve/train -o runs/kaggle
edgefusion ingest ../shared/data/kaggle-nerve/fullres -o runs/kaggle-fullres
edgefusion phantom -o runs/phantoms --size 185x256
python benchmarks/presence.py BUNDLE runs/kaggle --negatives runs/kaggle-fullres runs/phantoms

Positives are the frames of the first study that show the label, of patients whom the bundle was not trained on, or of
``--patients`` among them; negatives are cut from these beside the label, and the frames without it of the studies
named. Prints Markdown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from edgefusion.data.study import Study
from edgefusion.evaluation.bootstrap import RESAMPLES, interval, patient_counts, ratio, sums_by_patient
from edgefusion.evaluation.presence import SCORES, presence_threshold
from edgefusion.evaluation.presence_frames import POSITIVE
from edgefusion.evaluation.presence_table import as_markdown, score_presence, summarise_presence
from edgefusion.files import write_text
from edgefusion.inference.predictor import load_bundle

_SENSITIVITIES = (0.95, 0.97, 0.98, 0.99)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="folder of a bundle, or the name of one that ships along")
    parser.add_argument("study", type=Path, help="study of the positives")
    parser.add_argument("--negatives", type=Path, nargs="*", default=[], help="studies with frames without the label")
    parser.add_argument("--patients", default="", help="judge positives of these alone, separated by commas")
    parser.add_argument("--label", default="nerve")
    parser.add_argument("-o", "--output", type=Path, help="file for the scores of every frame, as CSV")
    given = parser.parse_args()
    others = [Study.load(path) for path in given.negatives]
    patients = given.patients.split(",") if given.patients else None
    frames = score_presence(load_bundle(given.bundle), Study.load(given.study), others, given.label, patients)
    if given.output:
        write_text(given.output, frames.to_csv(index=False))
    print("\n".join(as_markdown(summarise_presence(frames))))
    print()
    print(costs(frames))
    print(emptied(frames))
    print(gains(frames))


def gains(frames: pd.DataFrame) -> str:
    """How much better the presence head ranks frames than the highest probability: paired, resampling patients."""
    if frames["head"].isna().any():
        return "The bundle has no presence head."
    shown, parts = frames[frames["kind"] == POSITIVE], []
    for kind, negative in frames[frames["kind"] != POSITIVE].groupby("kind", sort=False):
        both = pd.concat([shown, negative], ignore_index=True)
        names, patient = np.unique(both["patient_id"], return_inverse=True)
        positive = np.arange(len(both)) < len(shown)
        counts = patient_counts(len(names), RESAMPLES, seed=0)
        of = {which: sums_by_patient((positive == which).astype(float), patient, len(names)) for which in (True, False)}
        # An AUROC is the share of pairs in the right order: a sum over pairs of patients.
        more = sum(
            sign * _ordered(both[score].to_numpy(), positive, patient, len(names))
            for sign, score in ((1, "head"), (-1, "maximum"))
        )
        draws = ratio(((counts @ more) * counts).sum(axis=1), (counts @ of[True]) * (counts @ of[False]))
        low, high = interval(draws, min(np.count_nonzero(some) for some in of.values()))
        known = f" ({low:+.3f} to {high:+.3f})" if np.isfinite(low) else ""
        parts.append(f"{kind} {more.sum() / (of[True].sum() * of[False].sum()):+.3f}{known}")
    return f"AUROC, head minus highest probability: {'; '.join(parts)}."


def _ordered(
    scores: NDArray[np.float64], positive: NDArray[np.bool_], patient: NDArray[np.intp], patients: int
) -> NDArray[np.float64]:
    """Pairs in the right order of positives of the patient of the row, and negatives of that of the column."""
    found = np.zeros((patients, patients))
    for other in np.unique(patient[~positive]):
        lower = np.sort(scores[~positive & (patient == other)])
        beaten = (np.searchsorted(lower, scores, "left") + np.searchsorted(lower, scores, "right")) / 2
        found[:, other] = sums_by_patient(np.where(positive, beaten, 0.0), patient, patients)
    return found


def emptied(frames: pd.DataFrame) -> str:
    """What the bundle's own presence threshold does to the Dice of the positives, with the interval of patients."""
    shown = frames[frames["kind"] == POSITIVE]
    names, place = np.unique(shown["patient_id"], return_inverse=True)
    counts = patient_counts(len(names), RESAMPLES, seed=0)
    frames_of = sums_by_patient(np.ones(len(shown)), place, len(names))
    parts = []
    for values in (shown["used_dice"], shown["dice"], shown["used_dice"] - shown["dice"]):
        sums = sums_by_patient(values.to_numpy(), place, len(names))
        low, high = interval(ratio(counts @ sums, counts @ frames_of), len(names))
        parts.append(f"{values.mean():.4f} ({low:.4f} to {high:.4f})")
    return "Dice, masked frames: {} as used, {} whatever presence says, difference {}.".format(*parts)


def costs(frames: pd.DataFrame) -> str:
    """What it costs in Dice, and gains in specificity, to empty the masks of frames below a threshold."""
    shown = frames[frames["kind"] == POSITIVE]
    kinds = {kind: negative for kind, negative in frames.groupby("kind", sort=False) if kind != POSITIVE}
    lines = [
        f"| score | sensitivity asked for | threshold | Dice, masked frames | {' | '.join(map(str, kinds))} |",
        "|---" * (4 + len(kinds)) + "|",
    ]
    for name in (name for name in SCORES if frames[name].notna().all()):
        for sensitivity in _SENSITIVITIES:
            threshold = presence_threshold(shown[name].to_numpy(), sensitivity)
            lost = (shown["dice"] * (shown[name] < threshold)).mean()
            right = [
                f"{((negative[name] < threshold) | (negative['dice'] == 1)).mean():.3f}" for negative in kinds.values()
            ]
            cells = [name, f"{sensitivity:g}", f"{threshold:.3f}", f"{shown['dice'].mean() - lost:.4f} (−{lost:.4f})"]
            lines.append(f"| {' | '.join([*cells, *right])} |")
    return "\n".join([*lines, "", "The last columns are specificities."])


if __name__ == "__main__":
    main()
