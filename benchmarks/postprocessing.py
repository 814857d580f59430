"""What post-processing does to the masks of trained networks, on patients whom they did not see.

edgefusion ingest ../shared/data/kaggle-nerve/train -o runs/kaggle
edgefusion ingest ../shared/data/kaggle-nerve/fullres -o runs/kaggle-fullres
edgefusion phantom -o runs/phantoms --size 185x256
python benchmarks/postprocessing.py runs/kaggle --runs runs/ablation/full runs/ablation/pretrained \
    --negatives runs/kaggle-fullres runs/phantoms -o runs/postprocessing/development.csv
python benchmarks/postprocessing_table.py runs/postprocessing/development.csv

Judges every fold of the runs on the patients that it held out, and, where ``--negatives`` names studies, on frames
without the label too: those of the studies, and cuts beside the label from the judged frames. The smallest area and
the shapes come from the patients that the fold trained on. ``--only`` names combinations, as the table spells them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from edgefusion.bundle import Bundle
from edgefusion.channels.recipe import build_stack, cached_stacks
from edgefusion.config import PostProcessing
from edgefusion.data.splits import Split, read_splits
from edgefusion.data.study import Study
from edgefusion.evaluation.metrics import frame_measures
from edgefusion.evaluation.presence_frames import POSITIVE, cuts, negatives, positives
from edgefusion.files import write_text
from edgefusion.inference.postprocess import clean
from edgefusion.inference.predictor import BATCH, Maps, Predictor
from edgefusion.inference.shapes import Shapes, fit_shapes, project
from edgefusion.progress import say

NONE = "none"
SHARES = {"¼": 0.25, "½": 0.5, "1": 1.0}
COMPONENTS = (10, 20, 40, 80, 160, 320)
Frame = tuple[str, str, str, NDArray[np.floating[Any]], NDArray[np.uint8]]
"""Kind, frame, patient, channels C×height×width, true label mask H×W."""


def combinations() -> list[str]:
    areas = [f"area {share}" for share in SHARES]
    shapes = [f"shapes {count}" for count in COMPONENTS]
    return [
        *(NONE, "holes", "largest", "largest, holes", *areas),
        *(f"{area}, largest" for area in areas),
        *(f"{area}, largest, holes" for area in areas),
        *shapes,
        *(f"{name}, largest" for name in shapes),
    ]


def steps_of(name: str, smallest: float) -> PostProcessing:
    """The steps after the threshold that a combination names."""
    parts = name.split(", ")
    share = next((SHARES[part.removeprefix("area ")] for part in parts if part.startswith("area ")), 0.0)
    return PostProcessing(smallest * share, "largest" in parts, "holes" in parts)


def components_of(name: str) -> int:
    return next((int(part.removeprefix("shapes ")) for part in name.split(", ") if part.startswith("shapes ")), 0)


def learn(study: Study, fold: Split, size: tuple[int, int], count: int) -> tuple[dict[str, float], dict[str, Shapes]]:
    """Of every label, the smallest area as a share of the frame, and the shapes, in the frames trained on."""
    masks = [np.asarray(study.mask(frame_id)) for frame_id in fold.train_frames(study)]
    shares, shapes = {}, {}
    for value, label in enumerate(study.labels, 1):
        shown = [mask == value for mask in masks if (mask == value).any()]
        shares[label] = min(float(mask.mean()) for mask in shown)
        if count:
            shapes[label] = fit_shapes(shown, size, count)
    return shares, shapes


def judged_frames(study: Study, fold: Split, bundle: Bundle, others: list[Study]) -> list[Frame]:
    assert not set(fold.validation) & bundle.seen(study.sha256())
    ids = fold.validation_frames(study)
    patients = study.frames.set_index("frame_id").loc[ids, "patient_id"]
    stacks = cached_stacks(study, ids, bundle.recipe, study.cache)
    found: list[Frame] = [
        (POSITIVE, frame_id, patient, stack, np.asarray(study.mask(frame_id)))
        for frame_id, patient, stack in zip(ids, patients, stacks, strict=True)
    ]
    if others:
        label = study.labels[0]
        shown = [shot for shot in positives(study, bundle, label) if shot.patient_id in fold.validation]
        empty = cuts(shown)
        for other in others:
            empty += negatives(other, bundle, label, shown[0].image.shape[:2])
        for number, shot in enumerate(empty):
            stack = build_stack(shot.image, bundle.recipe)
            found.append((shot.kind, str(number), shot.patient_id, stack, np.zeros(shot.truth.shape, np.uint8)))
    return found


def judge_fold(
    study: Study, folder: Path, fold: Split, others: list[Study], names: list[str]
) -> Iterator[dict[str, Any]]:
    bundle = Bundle.load(folder)
    predictor = Predictor(bundle, flip_averaging=True)
    count = max(components_of(name) for name in names)
    shares, shapes = learn(study, fold, (bundle.recipe.height, bundle.recipe.width), count)
    frames = judged_frames(study, fold, bundle, others)
    for start in range(0, len(frames), BATCH):
        part = frames[start : start + BATCH]
        for frame, maps in zip(part, predictor.infer(np.stack([frame[3] for frame in part])), strict=True):
            kind, frame_id, patient, _, truth = frame
            # Most combinations leave most masks alike.
            measured: dict[tuple[int, bytes], dict[str, float]] = {}
            for name in names:
                mask, milliseconds = processed(predictor, maps, truth.shape, name, shares, shapes)
                for value, label in enumerate(study.labels, 1):
                    found, true = mask == value, truth == value
                    key = value, found.tobytes()
                    if key not in measured:
                        measured[key] = {"false_regions": false_regions(found, true), **frame_measures(found, true)}
                    yield {
                        "combination": name,
                        "label": label,
                        "kind": kind if kind != POSITIVE or true.any() else study.name,
                        "frame_id": frame_id,
                        "patient_id": patient,
                        "milliseconds": milliseconds,
                        **measured[key],
                    }


def processed(
    predictor: Predictor,
    maps: Maps,
    size: tuple[int, ...],
    name: str,
    shares: dict[str, float],
    shapes: dict[str, Shapes],
) -> tuple[NDArray[np.uint8], float]:
    """The mask after a combination, and the milliseconds of post-processing alone."""
    labels, count, spent = predictor.bundle.labels, components_of(name), 0.0
    if count:
        started = time.perf_counter()
        fitted = [shapes[label].first(count) for label in labels]
        projected = [project(plane, of_label) for plane, of_label in zip(maps[0], fitted, strict=True)]
        spent = time.perf_counter() - started
        maps = (np.stack(projected), *maps[1:])
    mask = predictor.finish(maps, size).mask
    started = time.perf_counter()
    mask = clean(mask, labels, {label: steps_of(name, shares[label]) for label in labels}, mask.size)
    return mask, 1000 * (spent + time.perf_counter() - started)


def false_regions(found: NDArray[np.bool_], true: NDArray[np.bool_]) -> int:
    """How many regions do not meet the truth anywhere."""
    count, regions = cv2.connectedComponents(found.astype(np.uint8), connectivity=8)
    return count - 1 - len(np.unique(regions[found & true]))


def judge(study: Study, runs: list[Path], models: list[str], others: list[Study], names: list[str]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for run in runs:
        splits = {split.name: split for split in read_splits(run / "splits.json")}
        for folder in sorted(path.parent for model in models for path in (run / model).glob("*/bundle.yaml")):
            say(f"Judging {folder}.")
            # A repeated training's folder is called after its split and its seed.
            fold = next(split for name, split in splits.items() if folder.name.startswith(name))
            facts = {"model": folder.parent.name, "fold": f"{run.name}/{folder.name}"}
            rows += [facts | row for row in judge_fold(study, folder, fold, others, names)]
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="comparisons on the study")
    parser.add_argument("--models", nargs="+", default=["edgefusion-unet"])
    parser.add_argument("--negatives", type=Path, nargs="*", default=[], help="studies with frames without the label")
    parser.add_argument("--only", nargs="+", default=combinations(), help="combinations; always beside none")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file for a row a frame, as CSV")
    given = parser.parse_args()
    others = [Study.load(path) for path in given.negatives]
    names = [NONE, *(name for name in given.only if name != NONE)]
    frames = judge(Study.load(given.study), given.runs, given.models, others, names)
    write_text(given.output, frames.to_csv(index=False))


if __name__ == "__main__":
    main()
