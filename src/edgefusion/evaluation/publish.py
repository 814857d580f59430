"""Publish a trained bundle: shrink it, judge what was shrunk on patients that it never saw, write its card.

python -m edgefusion.evaluation.publish runs/best runs/kaggle -o src/edgefusion/bundles/brachial-plexus \
    --pictures runs/worst --notes configs/cards/brachial-plexus.yaml

Run it once, look at the pictures, write what you see into the notes, and run it again. The machine should be quiet,
because it also takes the time.
"""

from __future__ import annotations

import argparse
import dataclasses
import glob
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from edgefusion.bundle import ONNX_FILE, Bundle
from edgefusion.data.study import Study
from edgefusion.environment import environment
from edgefusion.errors import EdgeFusionError, UsageError
from edgefusion.evaluation.aggregate import summarise
from edgefusion.evaluation.calibration import draw_reliability
from edgefusion.evaluation.card import Notes, read_notes, write_card
from edgefusion.evaluation.clean import measure_clean, overlap_facts, warn
from edgefusion.evaluation.evaluate import check_labels, judge, predict_frames
from edgefusion.evaluation.memory import KINDS, find_overlap
from edgefusion.evaluation.metrics import distance_unit
from edgefusion.evaluation.pictures import overlay
from edgefusion.evaluation.presence import SENSITIVITY, has_presence_head
from edgefusion.evaluation.presence_choice import choose_threshold
from edgefusion.evaluation.presence_table import score_presence, summarise_presence
from edgefusion.evaluation.temperature import calibrate
from edgefusion.files import atomic_path, write_json, write_text
from edgefusion.inference.predictor import Predictor, load_bundle
from edgefusion.inference.temperature import factors, scale
from edgefusion.progress import say, track

WORST = 10
"""Frames of each label that the card lists."""

_TIMED = 30
_WARM_UP = 3
_WORST_COLUMNS = (
    *("label", "frame_id", "patient_id", "dice", "precision", "recall"),
    *("hd95", "true_area", "predicted_area"),
)


@dataclass(frozen=True)
class PresencePlan:
    """How presence is decided, and what it is judged on besides the study's own frames."""

    understudy: Path | None = None
    """A bundle trained alike on fewer patients, which chooses the threshold, see ``choose_threshold``; without it the
    trained bundle's own threshold stays."""
    sensitivity: float = SENSITIVITY
    """Share of the frames with a label that the threshold is to keep."""
    negatives: tuple[Path, ...] = ()
    """Studies with frames that do not show the labels; with any, the card has a table of presence."""


def publish(
    bundle: Path | str,
    study: Path | str,
    output: Path,
    pictures: Path,
    notes: Path | None = None,
    presence: PresencePlan | None = None,
) -> dict[str, Any]:
    """Write a bundle with 16-bit weights, its measures and its card.

    All is made in a folder beside ``output`` and moved there at the end, so an interrupted call publishes nothing.

    Args:
        bundle: The trained bundle.
        study: A labelled study with the bundle's labels; its patients whom the bundle was not trained on are judged.
        output: Folder of the published bundle: ``model.safetensors``, ``bundle.yaml``, ``metrics.json``, ``README.md``
            and ``calibration.svg``.
        pictures: Folder for the worst frames with true (green) and predicted (magenta) outlines, which replace those
            of an earlier call. They are frames of the study, whose terms may forbid to pass them on, so this folder
            must not lie in ``output``.
        notes: A file for ``card.read_notes``.
        presence: How presence is decided and judged.

    Returns:
        What ``metrics.json`` holds: ``measure``, ``calibration`` (of each label, see ``temperature.calibrate``),
        ``presence_threshold`` (of ``choose_threshold``, or None) and ``presence`` (of each label
        ``summarise_presence``, if there are negatives).

    Raises:
        UsageError: If the study has other labels or no patient that is new to the bundle, or ``pictures`` lies in
            ``output``.
    """
    if pictures.resolve().is_relative_to(output.resolve()):
        raise UsageError(f"{pictures} lies in {output}.", "Keep pictures of the data apart from what is published.")
    said, plan = read_notes(notes) if notes else Notes(), presence or PresencePlan()
    judged, trained = Study.load(study), load_bundle(bundle)
    check_labels(trained, judged)
    choice = None
    if plan.understudy is not None:
        choice = choose_threshold(trained, load_bundle(plan.understudy), judged, plan.sensitivity)
        trained.thresholds = {**trained.thresholds, "presence": choice["threshold"]}
    output.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".publishing-", dir=output.parent) as temporary:
        made = Path(temporary)
        dataclasses.replace(trained, terms=said.terms or judged.terms, temperatures={}).save(made, half=True)
        # What is judged is what is published.
        published = Bundle.load(made)
        calibration = _calibrate(published, judged, choice)
        published.save_description(made)
        metrics = {**measure(published, judged, pictures), "calibration": calibration}
        metrics["presence_threshold"] = choice
        others = [Study.load(path) for path in plan.negatives]
        metrics["presence"] = {
            label: summarise_presence(score_presence(published, judged, others, label))
            for label in (judged.labels if others else ())
        }
        command = _command(bundle, study, output, pictures, notes, plan)
        write_json(made / "metrics.json", metrics)
        (made / "calibration.svg").write_bytes(draw_reliability(metrics["calibration"]))
        write_text(made / "README.md", write_card(output.resolve().name, published, metrics, said, command))
        _move(made, output)
    return metrics


def _calibrate(bundle: Bundle, study: Study, choice: dict[str, Any] | None) -> dict[str, Any]:
    """Give a bundle its temperatures, and say what they do, see ``temperature.calibrate``.

    They are fitted on the patients who judge, since no others are new to it, but on none of whom it knows a frame.
    """
    frame_ids = _new_frames(bundle, study)
    known = find_overlap(bundle, study, frame_ids).patients(*KINDS)
    patient = study.frames.set_index("frame_id")["patient_id"]
    calibration = calibrate(bundle, study, [name for name in frame_ids if patient[name] not in known] or frame_ids)
    bundle.temperatures = {label: fitted["temperature"] for label, fitted in calibration.items()}
    by = factors(bundle.temperatures, bundle.labels)
    if choice is not None and by is not None and not has_presence_head(bundle):
        # It was chosen by greatest probabilities as they were before.
        before = np.full((len(by), 1), choice["threshold"], dtype=np.float32)
        choice["threshold"] = bundle.thresholds["presence"] = float(scale(before, by).min())
    return calibration


def _new_frames(bundle: Bundle, study: Study) -> list[str]:
    """Labelled frames of patients whom a bundle was not trained on."""
    labelled = study.labelled()
    labelled = labelled[~labelled["patient_id"].isin(bundle.seen(study.sha256()))]
    if labelled.empty:
        raise UsageError(f"The bundle was trained on all labelled patients of {study.path}.", "Hold some out.")
    return [str(frame_id) for frame_id in labelled["frame_id"]]


def _move(made: Path, output: Path) -> None:
    """Move a bundle's files into place; its ``bundle.yaml`` comes last, so a folder that has one is whole."""
    (output / "bundle.yaml").unlink(missing_ok=True)
    (output / ONNX_FILE).unlink(missing_ok=True)  # made from what is replaced
    for file in sorted(made.iterdir(), key=lambda file: file.name == "bundle.yaml"):
        file.replace(output / file.name)


def measure(bundle: Bundle, study: Study, pictures: Path) -> dict[str, Any]:
    """Judge a bundle on the patients of a study whom it was not trained on, and draw the worst frames.

    Returns:
        ``study`` (``name``, ``sha256``, ``judged_frames``), ``held_out`` (patients), ``distance_unit``, ``measures``
        (rows of ``summarise``), ``overlap`` and ``clean`` (see ``evaluate.evaluate``), ``empty_frames`` (judged frames
        without each label), ``worst`` (frames with a mask and the lowest Dice, for each label) and ``speed``.

    Raises:
        UsageError: If there is no such patient.
    """
    frame_ids = _new_frames(bundle, study)
    overlap = find_overlap(bundle, study, frame_ids)
    facts = overlap_facts(overlap)
    warn(facts)
    rows: list[dict[str, Any]] = []
    predictions = predict_frames(study, bundle, frame_ids)
    for frame_id, prediction in zip(track(frame_ids, "Judging", len(frame_ids)), predictions, strict=True):
        rows += judge(study, frame_id, prediction)
    table = pd.DataFrame(rows).assign(
        model=bundle.model_name, fold="held out", presence_threshold=bundle.thresholds["presence"]
    )
    masked = table[table["true_area"] > 0].sort_values("dice", kind="stable")
    worst = masked.groupby("label", sort=False).head(WORST)
    _draw(study, bundle, worst, pictures)
    return {
        "study": {"name": study.name, "sha256": study.sha256(), "judged_frames": len(frame_ids)},
        "held_out": [str(patient) for patient in table["patient_id"].unique()],
        "overlap": facts,
        "clean": measure_clean(table, overlap),
        "distance_unit": distance_unit(study.frames),
        "measures": summarise(table).drop(columns="model").to_dict("records"),
        "empty_frames": {
            label: int((table["true_area"][table["label"] == label] == 0).sum()) for label in study.labels
        },
        "worst": worst[list(_WORST_COLUMNS)].to_dict("records"),
        "speed": _speed(study, bundle, frame_ids),
    }


def _draw(study: Study, bundle: Bundle, worst: pd.DataFrame, pictures: Path) -> None:
    frame_ids = [str(frame_id) for frame_id in worst["frame_id"]]
    values = [study.labels.index(label) + 1 for label in worst["label"]]
    for label in study.labels:
        for stale in pictures.glob(f"{glob.escape(label)}_*.png"):
            stale.unlink()
    for frame_id, value, prediction in zip(frame_ids, values, predict_frames(study, bundle, frame_ids), strict=True):
        truth = np.asarray(study.mask(frame_id))
        picture = overlay(study.image(frame_id), truth == value, prediction.mask == value)
        with atomic_path(pictures / f"{study.labels[value - 1]}_{frame_id}.png") as temporary:
            temporary.write_bytes(picture)


def _speed(study: Study, bundle: Bundle, frame_ids: Sequence[str]) -> dict[str, Any]:
    """Milliseconds from frame to prediction, one frame at a time, of frames spread over the judged ones."""
    predictor = Predictor(bundle)
    images = [study.image(frame_id) for frame_id in frame_ids[:: max(1, len(frame_ids) // _TIMED)][:_TIMED]]
    for image in images[:_WARM_UP]:
        predictor.predict(image)
    times = []
    for image in images:
        started = time.perf_counter()
        predictor.predict(image)
        times.append(1000 * (time.perf_counter() - started))
    machine = environment()
    return {
        "median_ms": round(float(np.median(times)), 2),
        "p95_ms": round(float(np.percentile(times, 95)), 2),
        "frames": len(times),
        "height": images[0].shape[0],
        "width": images[0].shape[1],
        "processor": machine["processor"],
        "cores": machine["cores"],
    }


def _command(
    bundle: Path | str, study: Path | str, output: Path, pictures: Path, notes: Path | None, plan: PresencePlan
) -> str:
    """The call, with paths relative to the working folder: where that lies on this machine is nobody's business."""
    folders = {"": bundle, " ": study, " -o ": output, " --pictures ": pictures, " --notes ": notes}
    folders |= {" --understudy ": plan.understudy}
    words = "".join(f"{flag}{shlex.quote(_relative(path))}" for flag, path in folders.items() if path)
    if plan.understudy:
        words += f" --sensitivity {plan.sensitivity:g}"
    if plan.negatives:
        words += " --negatives " + " ".join(shlex.quote(_relative(path)) for path in plan.negatives)
    return f"python -m edgefusion.evaluation.publish {words}"


def _relative(path: Path | str) -> str:
    relative = os.path.relpath(path)
    return Path(path).resolve().name if relative.startswith(os.pardir) else relative


def main(arguments: Sequence[str] | None = None) -> int:
    """The script; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder of the trained bundle")
    parser.add_argument("study", type=Path, help="labelled study; judged are the patients that the bundle never saw")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the published bundle")
    parser.add_argument("--pictures", type=Path, required=True, help="folder for the worst frames; never commit it")
    parser.add_argument("--notes", type=Path, help="YAML with about, terms, license, made_with, causes")
    parser.add_argument("--understudy", type=Path, help="bundle trained alike on fewer patients: sets the presence")
    parser.add_argument("--sensitivity", type=float, default=SENSITIVITY, help="share of frames that presence keeps")
    parser.add_argument("--negatives", type=Path, nargs="*", default=[], help="studies with frames without the labels")
    given = parser.parse_args(arguments)
    plan = PresencePlan(given.understudy, given.sensitivity, tuple(given.negatives))
    try:
        publish(given.bundle, given.study, given.output, given.pictures, given.notes, plan)
    except EdgeFusionError as error:
        say(str(error))
        return error.exit_code
    print(given.output / "README.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
