"""Judge predictions against a study's masks, at each frame's own size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from edgefusion.bundle import Bundle
from edgefusion.channels.recipe import cached_stacks
from edgefusion.data.splits import read_splits
from edgefusion.data.study import Study
from edgefusion.errors import DataError, UsageError
from edgefusion.evaluation.aggregate import summarise
from edgefusion.evaluation.answer import answer
from edgefusion.evaluation.clean import measure_clean, overlap_facts, tell_clean, warn
from edgefusion.evaluation.memory import find_overlap
from edgefusion.evaluation.metrics import distance_unit, frame_measures
from edgefusion.files import write_json, write_text
from edgefusion.inference.predictor import Prediction, Predictor, load_bundle
from edgefusion.locking import sole_use
from edgefusion.progress import track


def judge(study: Study, frame_id: str, prediction: Prediction) -> list[dict[str, Any]]:
    """Hold one prediction against the truth.

    Args:
        study: The study.
        frame_id: A labelled frame of it.
        prediction: What a network found there, at the frame's size.

    Returns:
        One row a label: its name, the frame, the patient, the presence, and every measure of ``frame_measures``.

    Raises:
        DataError: If the frame has no mask.
    """
    truth = study.mask(frame_id)
    if truth is None:
        raise DataError(f"Frame {frame_id} of {study.path} has no mask.", "Judge labelled frames only.")
    row = study.frames.loc[study.frames["frame_id"] == frame_id].iloc[0]
    millimetres = distance_unit(study.frames) == "mm"
    spacing = (float(row["spacing_row_mm"]), float(row["spacing_col_mm"])) if millimetres else None
    rows = []
    for value, label in enumerate(study.labels, start=1):
        rows.append(
            {
                "label": label,
                "frame_id": frame_id,
                "patient_id": row["patient_id"],
                "presence": prediction.presence[value - 1],
                "has_nerve": bool((truth == value).any()),
                **frame_measures(prediction.mask == value, truth == value, spacing),
            }
        )
    return rows


def check_labels(bundle: Bundle, study: Study) -> None:
    """Raise a UsageError unless a bundle and a study have the same labels, in the same order."""
    if bundle.labels != study.labels:
        raise UsageError(
            f"The bundle finds {', '.join(bundle.labels)}, but the study is labelled {', '.join(study.labels)}.",
            "Judge a bundle on a study with its own labels.",
        )


def predict_frames(
    study: Study, bundle: Bundle, frame_ids: list[str], flip_averaging: bool = False
) -> Iterator[Prediction]:
    """Predict frames of a study, through the cache of their channels, in the order of ``frame_ids``."""
    stacks = cached_stacks(study, frame_ids, bundle.recipe, study.cache)
    frames = study.frames.set_index("frame_id").loc[frame_ids]
    sizes = list(zip(frames["height"].astype(int), frames["width"].astype(int), strict=True))
    return Predictor(bundle, flip_averaging=flip_averaging).predict_stacks(stacks, sizes)


def evaluate(
    bundle: Path | str,
    study: Study | Path | str,
    output: Path | str,
    split: Path | str | None = None,
    flip_averaging: bool = False,
) -> dict[str, Any]:
    """Judge a bundle on the labelled frames of a study.

    Args:
        bundle: Folder of the bundle, or the name of one that ships with the package.
        study: A study, or its folder. It must have the bundle's labels, in the same order.
        output: Folder that receives ``frames.csv`` (a row a frame and label) and ``summary.json``.
        split: A ``splits.json``; only patients that one of its folds holds out are judged.
        flip_averaging: Average each prediction with the mirrored frame's.

    Returns:
        What ``summary.json`` holds: a comparison's measures for this one network, ``overlap`` (what the judged frames
        share with its training frames, see ``clean.overlap_facts``) and ``clean`` (the measures without the patients
        of whom anything is shared, see ``clean.measure_clean``).

    Raises:
        UsageError: If the labels differ, nothing is there to judge, or another run is at work in ``output``.
        StorageError: If ``output`` cannot be written.
    """
    study = study if isinstance(study, Study) else Study.load(study)
    loaded, output = load_bundle(bundle), Path(output)
    check_labels(loaded, study)
    labelled = study.labelled()
    if split is not None:
        judged = {patient for part in read_splits(split) for patient in part.validation}
        labelled = labelled[labelled["patient_id"].isin(judged)]
    frame_ids = [str(frame_id) for frame_id in labelled["frame_id"]]
    if not frame_ids:
        raise UsageError(f"{study.path} has no labelled frame to judge.", "Choose a study with masks.")
    with sole_use(output):
        return _evaluate(loaded, study, frame_ids, output, "all" if split is None else "held out", flip_averaging)


def _evaluate(
    bundle: Bundle, study: Study, frame_ids: list[str], output: Path, fold: str, flip_averaging: bool
) -> dict[str, Any]:
    overlap = find_overlap(bundle, study, frame_ids)
    facts = overlap_facts(overlap)
    warn(facts)
    predictions = predict_frames(study, bundle, frame_ids, flip_averaging)
    rows: list[dict[str, Any]] = []
    for frame_id, prediction in zip(track(frame_ids, "Judging", len(frame_ids)), predictions, strict=True):
        rows += judge(study, frame_id, prediction)
    table = pd.DataFrame(rows)
    table.insert(0, "model", bundle.model_name)
    table.insert(1, "fold", fold)
    table["presence_threshold"] = bundle.thresholds["presence"]
    write_text(output / "frames.csv", table.to_csv(index=False))
    clean = measure_clean(table, overlap)
    measures = summarise(table)
    tell_clean(clean, measures)
    summary = {**_summary(table, measures, study), "overlap": facts, "clean": clean}
    write_json(output / "summary.json", summary)
    return summary


def _summary(table: pd.DataFrame, measures: pd.DataFrame, study: Study) -> dict[str, Any]:
    """The same form as a comparison's ``summary.json``, for one network."""
    model = str(table["model"].iloc[0])
    return {
        "study": study.name,
        "answers": {label: answer(measures, pd.DataFrame(), model, label) for label in study.labels},
        "reference": model,
        "models": [model],
        "distance_unit": distance_unit(study.frames),
        "measures": measures.to_dict("records"),
        "comparisons": [],
    }
