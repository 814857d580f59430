"""Judge predictions against a study's masks, at each frame's own size."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from edgefusion.bundle import Bundle
from edgefusion.channels.recipe import cached_stacks
from edgefusion.data.splits import Split
from edgefusion.data.study import Study
from edgefusion.errors import DataError, UsageError
from edgefusion.evaluation.aggregate import summarise
from edgefusion.evaluation.metrics import frame_measures
from edgefusion.files import write_json, write_text
from edgefusion.inference.predictor import Prediction, Predictor


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
    spacing = (float(row["spacing_row_mm"]), float(row["spacing_col_mm"]))
    known = spacing if all(math.isfinite(value) for value in spacing) else None
    rows = []
    for value, label in enumerate(study.labels, start=1):
        rows.append(
            {
                "label": label,
                "frame_id": frame_id,
                "patient_id": row["patient_id"],
                "presence": prediction.presence[value - 1],
                "has_nerve": bool((truth == value).any()),
                **frame_measures(prediction.mask == value, truth == value, known),
            }
        )
    return rows
