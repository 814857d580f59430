"""Is it the network that errs, or what all networks learn from the same frames? From a comparison's predictions.

python benchmarks/agreement.py runs/kaggle-fixed runs/kaggle

Mean Dice over masked frames: a network's mask against the annotator's, two seeds of one network, two networks, a
majority vote of all against the annotator, and the best of all for each frame (which needs the truth to choose).
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgefusion.data.study import Study
from edgefusion.evaluation.run import Run, read_run

Masks = NDArray[np.bool_]


def dice(first: Masks, second: Masks) -> float:
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 1.0


def frame_values(run: Run, study: Study, frame_id: str, folds: list[str]) -> dict[str, float]:
    truth = study.mask(frame_id)
    assert truth is not None
    true = truth > 0
    found: dict[tuple[str, str], Masks] = {}
    for model in run.models:
        for fold in folds:
            prediction = run.prediction(model, fold, frame_id)
            assert prediction is not None, f"{run.path} has lost a prediction of {model}"
            found[model, fold] = prediction > 0
    pairs = [(a, b, dice(found[a], found[b])) for a, b in combinations(found, 2)]
    against = {key: dice(mask, true) for key, mask in found.items()}
    vote = np.mean(list(found.values()), axis=0) >= 0.5
    return {
        "a network and the annotator": float(np.mean(list(against.values()))),
        "two seeds of one network": float(np.mean([value for a, b, value in pairs if a[0] == b[0]])),
        "two networks, same seed": float(np.mean([value for a, b, value in pairs if a[0] != b[0] and a[1] == b[1]])),
        "majority vote of all and the annotator": dice(vote, true),
        "the best of all for each frame and the annotator": max(against.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("study", type=Path)
    given = parser.parse_args()
    run, study = read_run(given.run), Study.load(given.study)
    masked = run.frames[run.frames["true_area"] > 0]
    rows = [
        frame_values(run, study, str(frame_id), sorted(of_frame["fold"].unique()))
        for frame_id, of_frame in masked.groupby("frame_id")
    ]
    print("| between | Dice, mean of frames |\n|---|---|")
    for name in rows[0]:
        print(f"| {name} | {np.mean([row[name] for row in rows]):.3f} |")


if __name__ == "__main__":
    main()
