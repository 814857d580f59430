"""The presence threshold of a bundle, chosen on patients whom it was trained on, by a network that was not."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgefusion.bundle import Bundle
from edgefusion.data.study import Study
from edgefusion.errors import UsageError
from edgefusion.evaluation.evaluate import check_labels, predict_frames
from edgefusion.evaluation.presence import presence_threshold


def choose_threshold(bundle: Bundle, understudy: Bundle, study: Study, sensitivity: float) -> dict[str, Any]:
    """Choose the presence threshold that a bundle is published with.

    Its own answers to the frames that it was trained on are too sure, and the patients who judge it must not choose
    anything. So the threshold is the one that keeps a share of the frames that show a label (``presence_threshold``;
    with several labels, the lowest of theirs) where another network, trained alike on fewer patients, meets patients
    who are new to it.

    Args:
        bundle: What the threshold is for.
        understudy: The other network.
        study: The study that both were trained on.
        sensitivity: The share of frames to keep.

    Returns:
        ``threshold``, ``sensitivity`` (asked for), ``frames`` with a label and ``patients`` that it was chosen on.

    Raises:
        UsageError: If the two networks differ in kind, or no patient of the bundle's is new to the understudy.
    """
    check_labels(understudy, study)
    kinds = [(one.model_name, one.model_args, one.recipe) for one in (bundle, understudy)]
    if kinds[0] != kinds[1]:
        raise UsageError("The presence threshold cannot come from another kind of network.", "Train one alike.")
    labelled = study.labelled()
    labelled = labelled[labelled["patient_id"].isin(set(bundle.trained_on) - understudy.seen(study.sha256()))]
    frame_ids = [str(frame_id) for frame_id in labelled["frame_id"]]
    scores: list[list[float]] = [[] for _ in study.labels]
    frames = 0
    for frame_id, prediction in zip(frame_ids, predict_frames(study, understudy, frame_ids), strict=True):
        truth = np.asarray(study.mask(frame_id))
        frames += bool(truth.any())
        for value, (found, presence) in enumerate(zip(scores, prediction.presence, strict=True), start=1):
            if (truth == value).any():
                found.append(presence)
    if not all(scores):
        raise UsageError(
            "No patient whom the bundle was trained on is new to the other network.", "Leave some out there."
        )
    return {
        "threshold": min(presence_threshold(np.array(found), sensitivity) for found in scores),
        "sensitivity": sensitivity,
        "frames": frames,
        "patients": [str(patient) for patient in labelled["patient_id"].unique()],
    }
