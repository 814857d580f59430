"""Predict files, folders and studies into a folder; a second call goes on where the first one stopped."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefusion.bundle import Bundle
from edgefusion.data.clip import Region, Spacing
from edgefusion.data.live import is_live, public_name
from edgefusion.data.signature import is_dicom
from edgefusion.data.sources import has_many_frames, open_clip
from edgefusion.errors import DataError, EdgeFusionError, StorageError, UsageError
from edgefusion.files import sha256_of_file
from edgefusion.inference.ahead import ahead
from edgefusion.inference.backends import Backend
from edgefusion.inference.clip_job import do_clip, do_live
from edgefusion.inference.clip_writers import CLIP_FORMATS
from edgefusion.inference.inputs import FrameFile, find_frames
from edgefusion.inference.job import Job
from edgefusion.inference.predict_clip import Crop
from edgefusion.inference.predictor import BATCH, Predictor
from edgefusion.inference.record import Record
from edgefusion.inference.smoothing import Smoothing
from edgefusion.inference.writers import (
    DICOM_FORMATS,
    STILL_FORMATS,
    Result,
    check_formats,
    measures,
    prune_submission,
    write_results,
)
from edgefusion.locking import sole_use
from edgefusion.progress import say, track
from edgefusion.remote import UnreachableError, fetched, place

_NAMED = 5
"""Inputs unlike what the network knows that are named at the end; the record has them all."""


def predict_files(
    inputs: Sequence[Path | str],
    output: Path,
    bundle: Bundle,
    formats: Sequence[str],
    flip_averaging: bool = False,
    *,
    strict: bool = False,
    crop: Crop = "auto",
    smoothing: float = 0.0,
    backend: Backend | None = None,
) -> list[dict[str, Any]]:
    """Find the labels of a bundle in every frame of ``inputs``.

    Inputs whose files are already in ``output``, made from the same input by the same bundle, are left as they are.
    An input that cannot be used is reported on stderr and in ``output/predict-report.csv``, and left out.

    Args:
        inputs: Pictures, videos, folders and studies, see ``find_frames``, and addresses of live sources, see
            ``open_live``, which come last.
        output: Folder of the results. A frame's files begin with the name of its own file; where frames of several
            folders share a name, later ones get ``-2``, ``-3`` ..., which they keep in later calls.
        bundle: The network.
        formats: Of ``writers.FORMATS``; pictures are written in those but "video", clips in ``CLIP_FORMATS``, and only
            DICOM files in those of DICOM.
        flip_averaging: See ``Predictor``.
        strict: Fail, after all frames were tried, if any could not be used.
        crop: Where to look: "auto" is the region that a file states, and in a clip that states none the one that is
            found; "none" is all of the frame.
        smoothing: For clips, see ``Smoothing``.
        backend: What runs the network, see ``Predictor``.

    Returns:
        One summary a picture, clip or live source, pictures first, each in the order of the inputs: ``input`` (absolute
        path, or address and time), ``name`` (how its files begin), ``status`` ("done", "kept" from an earlier call, or
        "failed"), ``reason`` of a failure; of a picture what ``writers.measures`` gives; of a clip how many ``frames``
        it has, how many were ``dropped`` or ``damaged``, and how many are ``unlike_training``, where the bundle can
        tell.

    Raises:
        UsageError: If an input or a format does not exist, an option is out of range, or another process is at work in
            ``output``.
        DataError: If no input could be used, or with ``strict`` not all of them.
        StorageError: If the results cannot be written. What is written is kept.
    """
    formats = tuple(dict.fromkeys(formats))
    check_formats(formats, bundle.labels)
    Smoothing(smoothing)
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file.", "Choose a folder for the output.")
    live = [str(source) for source in inputs if is_live(str(source))]
    files = [place(source) for source in inputs if not is_live(str(source))]
    frames = find_frames(files, output) if files or not live else []
    clips: list[FrameFile] = []
    pictures: list[FrameFile] = []
    dicom: list[FrameFile] = []
    for frame in frames:
        group = clips if has_many_frames(frame.path) else dicom if is_dicom(frame.path) else pictures
        group.append(frame)
    # Two runs would each write the table as they know it, and lose the rows of the other.
    with sole_use(output):
        record = Record(output)
        job = Job(
            predictor=Predictor(bundle, flip_averaging, backend=backend),
            record=record,
            names=record.names_for(str(frame.path) for frame in frames),
            formats=formats,
            crop=crop,
            smoothing=smoothing,
            talks=len(frames) > 1,
        )
        # Stills of one kind can be written in the same formats: the first speaks for all.
        _check_use(job, [*pictures[:1], *dicom[:1]], clips, live)
        summaries: list[dict[str, Any]] = []
        for stills in (pictures, dicom):
            summaries += _predict_stills(job, stills) if stills else []
        summaries += [do_clip(job, clip) for clip in clips]
        summaries += [do_live(job, url) for url in live]
        _conclude(summaries, record, strict)
    return summaries


def _check_use(job: Job, stills: Sequence[FrameFile], clips: Sequence[FrameFile], live: Sequence[str]) -> None:
    """Every input must come out in some format; of those that it cannot have there may be more."""
    kinds = (
        ("a still picture", [(str(frame.path), frame.path) for frame in stills], (*STILL_FORMATS, *DICOM_FORMATS)),
        ("a clip", [(str(frame.path), frame.path) for frame in clips], CLIP_FORMATS),
        ("a live source", [(public_name(url), Path(url)) for url in live], CLIP_FORMATS),
    )
    for kind, inputs, possible in kinds:
        for name, path in inputs:
            if not job.formats_of(path, possible):
                what = f"{name} is {kind}, which cannot be written as {', '.join(job.formats)}."
                raise UsageError(what, "Add another format, such as overlay.")


@dataclass
class _Prepared:
    """A picture on its way to the network; without a stack it does not go there."""

    summary: dict[str, Any]
    image: NDArray[Any] | None = None
    stack: NDArray[np.float32] | None = None
    spacing: Spacing | None = None
    region: Region | None = None


def _predict_stills(job: Job, frames: Sequence[FrameFile]) -> list[dict[str, Any]]:
    """Predict pictures that can be written in the same formats, in batches."""
    formats = job.formats_of(frames[0].path, (*STILL_FORMATS, *DICOM_FORMATS))
    plain = [name for name in formats if name in STILL_FORMATS]
    dicom = [name for name in formats if name in DICOM_FORMATS]
    made_by = job.fingerprint(*([] if job.crop == "auto" else [job.crop]))

    def prepare(frame: FrameFile) -> _Prepared:
        facts = job.facts(frame, made_by)
        try:
            path = fetched(frame.path)
            facts["input_sha256"] = sha256_of_file(path)
            if kept := job.record.kept(facts, formats):
                return _Prepared({**kept, "status": "kept"})
            clip = open_clip(path)
            image = next(clip.read())
            region = clip.region if job.crop == "auto" else job.crop if isinstance(job.crop, Region) else None
            stack = job.predictor.prepare(image, region, threads=1)
            return _Prepared(facts, image, stack, frame.spacing or clip.spacing, region)
        except UnreachableError:
            raise  # says nothing about this frame
        except (EdgeFusionError, OSError) as error:
            return _Prepared({**facts, "status": "failed", "reason": str(error)})

    summaries: list[dict[str, Any]] = []
    prepared = track(ahead(prepare, frames, 2 * BATCH, os.cpu_count()), "Predicting frames", total=len(frames))
    while batch := list(islice(prepared, BATCH)):
        fresh = [frame for frame in batch if frame.stack is not None]
        results = _results(job.predictor, fresh)
        for frame, result in zip(fresh, results, strict=True) if dicom else ():
            try:
                _write_dicom(dicom, job, frame, result)
            except StorageError:
                raise
            except EdgeFusionError as error:
                frame.summary |= {"status": "failed", "reason": str(error)}
        for name in plain:
            write_results(name, job.record.folder, results, job.predictor.bundle)
        for frame, result in zip(fresh, results, strict=True):
            frame.summary |= measures(result.prediction)
        new = [frame.summary for frame in batch if frame.summary["status"] != "kept"]
        for summary in new:
            job.tell(summary)
        if new:
            # After the files: where a call is cut short in between, the next one does these frames again.
            job.record.add(new, formats)
        summaries += [frame.summary for frame in batch]
    if "kaggle" in formats:
        # Rows of another bundle, and of frames that have become unreadable, must not be handed in with these.
        prune_submission(job.record.folder, job.record.names_in("kaggle", made_by))
    return summaries


def _results(predictor: Predictor, frames: Sequence[_Prepared]) -> list[Result]:
    if not frames:
        return []
    maps = predictor.infer(np.stack([np.asarray(frame.stack) for frame in frames]))
    results = []
    for frame, one in zip(frames, maps, strict=True):
        image = np.asarray(frame.image)
        prediction = predictor.finish(one, image.shape, frame.spacing, frame.region)
        results.append(Result(frame.summary["name"], image, prediction, frame.spacing, frame.region))
    return results


def _write_dicom(formats: Sequence[str], job: Job, frame: _Prepared, result: Result) -> None:
    from edgefusion.inference.dicom_write import write_dicom

    write_dicom(
        formats,
        Path(frame.summary["input"]),
        [result.prediction],
        [result.image],
        job.predictor.bundle,
        job.record.folder,
        result.name,
        spacing=result.spacing,
        region=result.region,
    )


def _conclude(summaries: Sequence[dict[str, Any]], record: Record, strict: bool) -> None:
    failed = [summary for summary in summaries if summary["status"] == "failed"]
    if failed and (strict or len(failed) == len(summaries)):
        if len(summaries) == 1:
            raise DataError(summaries[0]["reason"])
        reasons = f"The reasons are in {record.path}."
        raise DataError(f"{len(failed)} of {len(summaries)} frames could not be used.", reasons)
    done, kept = (
        sum(summary.get("frames", 1) for summary in summaries if summary["status"] == status)
        for status in ("done", "kept")
    )
    say(f"{done} frames predicted, {kept} kept, {len(failed)} failed: {record.folder}")
    if strange := [summary for summary in summaries if summary.get("unlike_training")]:
        count = sum(summary["unlike_training"] for summary in strange)
        names = ", ".join(str(summary["name"]) for summary in strange[:_NAMED]) + (" ..." if strange[_NAMED:] else "")
        say(f"Unlike what this model knows: {count} of {done + kept} frames; do not rely on its answers there: {names}")
