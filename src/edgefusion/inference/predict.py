"""Predict files, folders and studies into a folder; a second call goes on where the first one stopped."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgefusion.bundle import Bundle
from edgefusion.channels.recipe import build_stack
from edgefusion.data.clip import Spacing
from edgefusion.data.readers import read_frame
from edgefusion.errors import DataError, EdgeFusionError, UsageError
from edgefusion.files import sha256_of_file
from edgefusion.inference.fingerprint import fingerprint
from edgefusion.inference.inputs import FrameFile, find_frames
from edgefusion.inference.predictor import BATCH, Prediction, Predictor
from edgefusion.inference.record import Record
from edgefusion.inference.writers import Result, check_formats, prune_submission, write_results
from edgefusion.progress import say, track

T = TypeVar("T")
R = TypeVar("R")


def predict_files(
    inputs: Sequence[Path],
    output: Path,
    bundle: Bundle,
    formats: Sequence[str],
    flip_averaging: bool = False,
    *,
    strict: bool = False,
) -> list[dict[str, Any]]:
    """Find the labels of a bundle in every frame of ``inputs``.

    Frames whose files are already in ``output``, made from the same input by the same bundle, are left as they are.
    A frame that cannot be used is reported on stderr and in ``output/predict-report.csv``, and left out.

    Args:
        inputs: Pictures, folders and studies, see ``find_frames``.
        output: Folder of the results. A frame's files begin with the name of its own file; where frames of several
            folders share a name, later ones get ``-2``, ``-3`` ..., which they keep in later calls.
        bundle: The network.
        formats: Of ``writers.FORMATS``.
        flip_averaging: See ``Predictor``.
        strict: Fail, after all frames were tried, if any could not be used.

    Returns:
        One summary a frame, in the order of the inputs: ``input`` (absolute path), ``name`` (how its files begin),
        ``status`` ("done", "kept" from an earlier call, or "failed"), ``reason`` of a failure, and for each label
        ``presence_LABEL`` in [0, 1], ``area_px_LABEL``, and where the spacing is known ``area_mm2_LABEL``.

    Raises:
        UsageError: If an input or a format does not exist.
        DataError: If no frame could be used, or with ``strict`` not all of them.
    """
    formats = tuple(dict.fromkeys(formats))
    check_formats(formats, bundle.labels)
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file.", "Choose a folder for the output.")
    frames = find_frames(inputs, output)
    record = Record(output)
    names = record.names_for(str(frame.path) for frame in frames)
    predictor = Predictor(bundle, flip_averaging)
    made_by = fingerprint(bundle, flip_averaging)

    def prepare(frame: FrameFile) -> _Prepared:
        facts = {
            "input": str(frame.path),
            "name": names[str(frame.path)],
            "status": "done",
            "reason": "",
            "spacing_mm": "×".join(map(str, frame.spacing or ())),
            "made_by": made_by,
        }
        try:
            facts["input_sha256"] = sha256_of_file(frame.path)
            if kept := record.kept(facts, formats):
                return _Prepared({**kept, "status": "kept"})
            image = read_frame(frame.path)
            return _Prepared(facts, image, build_stack(image, bundle.recipe, threads=1), frame.spacing)
        except (EdgeFusionError, OSError) as error:
            return _Prepared({**facts, "status": "failed", "reason": str(error)})

    summaries: list[dict[str, Any]] = []
    prepared = track(_ahead(prepare, frames, 2 * BATCH), "Predicting frames", total=len(frames))
    while batch := list(islice(prepared, BATCH)):
        fresh = [frame for frame in batch if frame.stack is not None]
        results = _results(predictor, fresh)
        for name in formats:
            write_results(name, output, results, bundle)
        for frame, result in zip(fresh, results, strict=True):
            frame.summary |= _measures(result.prediction)
        for frame in batch:
            if frame.summary["status"] == "failed" and len(frames) > 1:
                say(frame.summary["reason"])
        new = [frame.summary for frame in batch if frame.summary["status"] != "kept"]
        if new:
            # After the files: where a call is cut short in between, the next one does these frames again.
            record.add(new, formats)
        summaries += [frame.summary for frame in batch]
    if "kaggle" in formats:
        # Rows of another bundle, and of frames that have become unreadable, must not be handed in with these.
        prune_submission(output, record.names_in("kaggle", made_by))
    _conclude(summaries, record, strict)
    return summaries


@dataclass
class _Prepared:
    """A frame on its way to the network; without a stack it does not go there."""

    summary: dict[str, Any]
    image: NDArray[Any] | None = None
    stack: NDArray[np.float32] | None = None
    spacing: Spacing | None = None


def _ahead(function: Callable[[T], R], items: Iterable[T], depth: int) -> Iterator[R]:
    """Yield ``function(item)`` in order; threads work up to ``depth`` items ahead of what is consumed."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _results(predictor: Predictor, frames: Sequence[_Prepared]) -> list[Result]:
    if not frames:
        return []
    images = [np.asarray(frame.image) for frame in frames]
    stacks = np.stack([np.asarray(frame.stack) for frame in frames])
    sizes = [image.shape for image in images]
    predictions = predictor.predict_stacks(stacks, sizes, [frame.spacing for frame in frames])
    return [
        Result(frame.summary["name"], image, prediction, frame.spacing)
        for frame, image, prediction in zip(frames, images, predictions, strict=True)
    ]


def _measures(prediction: Prediction) -> dict[str, float]:
    values: dict[str, float] = {}
    for index, label in enumerate(prediction.labels):
        values[f"presence_{label}"] = round(prediction.presence[index], 6)
        values[f"area_px_{label}"] = prediction.area_px[index]
        if prediction.area_mm2 is not None:
            values[f"area_mm2_{label}"] = round(prediction.area_mm2[index], 4)
    return values


def _conclude(summaries: Sequence[dict[str, Any]], record: Record, strict: bool) -> None:
    count = {status: sum(s["status"] == status for s in summaries) for status in ("done", "kept", "failed")}
    if count["failed"] and (strict or count["failed"] == len(summaries)):
        if len(summaries) == 1:
            raise DataError(summaries[0]["reason"])
        reasons = f"The reasons are in {record.path}."
        raise DataError(f"{count['failed']} of {len(summaries)} frames could not be used.", reasons)
    say(f"{count['done']} frames predicted, {count['kept']} kept, {count['failed']} failed: {record.folder}")
