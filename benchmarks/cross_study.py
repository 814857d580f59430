"""Trained on one study, judged on another: what every network of a comparison finds where it has never been.

edgefusion compare runs/kaggle --config configs/kaggle-fixed.yaml --pretrained runs/pretraining -o runs/kaggle-fixed
edgefusion compare runs/usgra --config configs/usgra.yaml -o runs/usgra-compare
python benchmarks/cross_study.py runs/kaggle-fixed runs/usgra
python benchmarks/cross_study.py runs/usgra-compare runs/kaggle --split runs/kaggle-fixed/splits.json --also regional

Only one label is judged, of whatever place among the labels of either study. Every bundle of the comparison (of each
fold and seed) judges every frame, with flips as the comparison did. Intervals draw patients; patients tied by
near-duplicate frames, which is all that is known of some studies, are drawn together.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from edgefusion.bundle import Bundle
from edgefusion.data.splits import patient_blocks, read_splits
from edgefusion.data.study import Study
from edgefusion.errors import UsageError
from edgefusion.evaluation.aggregate import summarise
from edgefusion.evaluation.compare import compare_models
from edgefusion.evaluation.evaluate import predict_frames
from edgefusion.evaluation.metrics import frame_measures
from edgefusion.evaluation.run import Run, read_run
from edgefusion.files import write_text
from edgefusion.inference.predictor import load_bundle
from edgefusion.models.names import TITLES
from edgefusion.progress import say

MEASURES = {"dice_masked": 3, "precision": 3, "recall": 3, "boundary_f1": 3, "hd95": 1, "n_missed": 0}
"""Measures of the table, with their digits."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished comparison, on another study")
    parser.add_argument("study", type=Path, help="the study that is judged on")
    parser.add_argument("--label", default="nerve")
    parser.add_argument("--split", type=Path, help="a splits.json of the study: judge on its held-out patients only")
    parser.add_argument("--also", default="", help="a further bundle, or the name of one that ships along")
    parser.add_argument("-o", "--output", type=Path, help="file for the figures of every frame, as CSV")
    given = parser.parse_args()
    run, study = read_run(given.run), Study.load(given.study)
    labelled = study.labelled()
    if given.split:
        judged = {patient for split in read_splits(given.split) for patient in split.validation}
        labelled = labelled[labelled["patient_id"].isin(judged)]
    frame_ids = [str(frame_id) for frame_id in labelled["frame_id"]]
    flips = bool(run.config["flip_averaging"])
    rows: list[dict[str, Any]] = []
    for model in run.models:
        for split in run.splits:
            say(f"{model} {split.name} on {len(frame_ids)} frames of {study.name} ...")
            bundle = Bundle.load(run.path / model / split.name)
            rows += judged_elsewhere(study, bundle, frame_ids, given.label, flips, model, split.name)
    if given.also:
        bundle = load_bundle(given.also)
        rows += judged_elsewhere(study, bundle, frame_ids, given.label, flips, given.also, "alone")
    frames = pd.DataFrame(rows)
    if given.output:
        write_text(given.output, frames.to_csv(index=False))
    print(as_markdown(frames, run, given.label))


def judged_elsewhere(
    study: Study, bundle: Bundle, frame_ids: list[str], label: str, flips: bool, model: str, fold: str
) -> list[dict[str, Any]]:
    """One row a frame, as ``aggregate.read_frames`` has them, for one label that bundle and study share.

    Raises:
        UsageError: If either does not have the label, or the bundle was trained on this study at any stage.
    """
    for owner, labels in ((f"The bundle {model}", bundle.labels), (str(study.path), study.labels)):
        if label not in labels:
            raise UsageError(f"{owner} knows {', '.join(labels)}, but no {label}.", "Name a label that both have.")
    if study.sha256() in (bundle.study_sha256, *(origin.sha256 for origin in bundle.started_from)):
        raise UsageError(f"{model} was trained on {study.path}.", "Judge it on another study.")
    found_value, true_value = bundle.labels.index(label) + 1, study.labels.index(label) + 1
    blocks = patient_blocks(study.frames).set_axis(study.frames["frame_id"])
    rows = []
    for frame_id, prediction in zip(frame_ids, predict_frames(study, bundle, frame_ids, flips), strict=True):
        truth = study.mask(frame_id)
        assert truth is not None
        rows.append(
            {
                **{"model": model, "fold": fold, "label": label, "frame_id": frame_id},
                **{"patient_id": str(blocks[frame_id]), "presence": prediction.presence[found_value - 1]},
                "has_nerve": bool((truth == true_value).any()),
                **frame_measures(prediction.mask == found_value, truth == true_value),
            }
        )
    return rows


def as_markdown(frames: pd.DataFrame, run: Run, label: str) -> str:
    """What every network finds there and found at home, and the reference beside the others."""
    values = summarise(frames).set_index(["model", "measure"])
    home = summarise(run.frames[run.frames["label"] == label]).set_index(["model", "measure"])["value"]
    compared = frames[frames["model"].isin(run.models)]
    pairs = compare_models(compared, run.reference).set_index(["measure", "other"])
    lines = [
        f"| network | Dice, masked frames (95 %) | {TITLES[run.reference]} minus it (95 %), p | precision | recall "
        "| boundary F1, 2 px | HD95, px | missed | Dice on its own study |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for model in frames["model"].unique():
        dice, *others = (f"{values.loc[(model, key), 'value']:.{digits}f}" for key, digits in MEASURES.items())
        span = values.loc[(model, "dice_masked")]
        difference = ""
        if model in run.models and model != run.reference:
            pair = pairs.loc[("dice_masked", model)]
            difference = f"{pair['difference']:+.3f} ({pair['low']:+.3f} to {pair['high']:+.3f}), {pair['p_holm']:.2f}"
        own = f"{home[(model, 'dice_masked')]:.3f}" if model in run.models else ""
        cells = [TITLES.get(model, model), f"{dice} ({span['low']:.3f} to {span['high']:.3f})", difference, *others]
        lines.append(f"| {' | '.join([*cells, own])} |")
    counts = f"{frames['frame_id'].nunique()} frames of {frames['patient_id'].nunique()} patients or groups"
    return "\n".join([*lines, "", f"{counts}; p after Holm's correction."])


if __name__ == "__main__":
    main()
