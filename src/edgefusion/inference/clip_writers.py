"""The predictions of a clip as files: a video and its table, folders of pictures, one JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from edgefusion.data.clip import Region, Spacing
from edgefusion.data.study import write_png
from edgefusion.data.video_writer import VideoWriter
from edgefusion.files import atomic_folder, atomic_path, write_text
from edgefusion.inference.measure import NerveMeasures, measure
from edgefusion.inference.measure_clip import measure_clip, measure_plot, measure_table
from edgefusion.inference.writers import DICOM_FORMATS, NOTICE, Result, describe, draw_overlay, measures, output_path

if TYPE_CHECKING:
    from edgefusion.bundle import Bundle
    from edgefusion.inference.predictor import Prediction

CLIP_FORMATS = ("png", "overlay", "json", "video", "measures", *DICOM_FORMATS)
"""Formats that hold a clip; those of DICOM only one that is a DICOM file."""


_INSTANT_S = 1e-6


class ClipFrame(NamedTuple):
    """A frame of a clip, and what was found in it."""

    number: int
    """Its place in the clip, from 0."""
    time_s: float
    """When it is shown, in seconds from the start."""
    image: NDArray[Any]
    """The frame, as for ``writers.Result``."""
    prediction: Prediction
    """What the network says, at the frame's size."""


@dataclass(frozen=True)
class ClipFacts:
    """What is the same for all frames of a clip."""

    name: str
    """How its files begin."""
    rate: float
    """Frames a second."""
    source: Path
    """The file, or the address of a live source."""
    spacing: Spacing | None
    """Height and width of a pixel in mm, where known."""
    region: Region | None
    """Where the image was looked for; None is all of the frame."""
    smoothing: float
    """See ``inference.smoothing.Smoothing``."""
    bundle: Bundle
    """What made the predictions."""


Add = Callable[[ClipFrame], None]


def clip_paths(format_: str, folder: Path, name: str) -> list[Path]:
    """The files and folders that hold a clip in a format, of ``CLIP_FORMATS``."""
    match format_:
        case "png":
            return [folder / f"{name}_mask"]
        case "overlay":
            return [folder / f"{name}_overlay"]
        case "json":
            return [folder / f"{name}.json"]
        case "measures":
            return [folder / f"{name}_measures{ending}" for ending in (".csv", ".json", ".svg")]
        case _ if format_ in DICOM_FORMATS:
            return [output_path(format_, folder, name)]
    return [folder / f"{name}_overlay.mp4", folder / f"{name}.csv"]


def is_complete(path: Path, frames: int) -> bool:
    """Whether a path of ``clip_paths`` is there, a folder with a picture for each of so many frames."""
    return path.is_file() or (path.is_dir() and sum(1 for _ in path.glob("*.png")) == frames)


@contextmanager
def clip_writers(formats: Sequence[str], folder: Path, facts: ClipFacts) -> Iterator[Add]:
    """Write a clip in several formats, frame by frame; what is yielded takes them.

    Everything appears, and replaces what is there, when the block ends; where it ends by an exception, nothing changes.

    - ``video``: an MP4 of the frames with outlines, the image region as a thin grey rectangle, and a CSV table:
      ``frame``, ``time_s``, and what ``writers.measures`` gives of a frame.
    - ``png``, ``overlay``: a folder with a PNG a frame, named by the frame's number, as ``write_results`` writes it.
    - ``json``: one object, whose ``frames`` has one entry a frame, each on a line of its own.
    - ``measures``: of each label in each frame, a CSV table (``measure_table``, and ``label``); summed up along
      the clip, JSON (``ClipMeasures.as_dict`` of each label); and the first label's area along the clip, SVG.
    - the formats of DICOM: see ``dicom_write.dicom_writer``.

    Raises:
        UsageError: At the end, if no frame came.
        DataError: If a format of DICOM is wanted and the source is no DICOM file that can be referred to.
    """
    writers: dict[str, Callable[[list[Path], ClipFacts], AbstractContextManager[Add]]] = {
        "png": _masks,
        "overlay": _overlays,
        "json": _json,
        "video": _video,
        "measures": _measures,
    }
    with ExitStack() as stack:
        plain = [name for name in formats if name in writers]
        adds = [stack.enter_context(writers[name](clip_paths(name, folder, facts.name), facts)) for name in plain]
        if dicom := [name for name in formats if name in DICOM_FORMATS]:
            adds.append(stack.enter_context(_dicom(dicom, folder, facts)))

        def add(frame: ClipFrame) -> None:
            for one in adds:
                one(frame)

        yield add


@contextmanager
def _video(paths: list[Path], facts: ClipFacts) -> Iterator[Add]:
    with (
        atomic_path(paths[1]) as table,
        table.open("w", encoding="utf-8", newline="") as file,
        VideoWriter(paths[0], facts.rate) as video,
    ):
        rows: csv.DictWriter[str] | None = None

        def add(frame: ClipFrame) -> None:
            nonlocal rows
            values = {"frame": frame.number, "time_s": round(frame.time_s, 4), **measures(frame.prediction)}
            if rows is None:
                rows = csv.DictWriter(file, list(values), lineterminator="\n")
                rows.writeheader()
            rows.writerow(values)
            video.write(draw_overlay(frame.image, frame.prediction, facts.region), frame.time_s)

        yield add


@contextmanager
def _masks(paths: list[Path], _: ClipFacts) -> Iterator[Add]:
    with atomic_folder(paths[0]) as folder:
        yield lambda frame: write_png(folder / f"{frame.number:06d}.png", frame.prediction.mask)


@contextmanager
def _overlays(paths: list[Path], facts: ClipFacts) -> Iterator[Add]:
    with atomic_folder(paths[0]) as folder:

        def add(frame: ClipFrame) -> None:
            picture = Image.fromarray(draw_overlay(frame.image, frame.prediction, facts.region))
            picture.save(folder / f"{frame.number:06d}.png", format="PNG")

        yield add


@contextmanager
def _json(paths: list[Path], facts: ClipFacts) -> Iterator[Add]:
    with atomic_path(paths[0]) as temporary, temporary.open("w", encoding="utf-8") as file:
        count = 0

        def add(frame: ClipFrame) -> None:
            nonlocal count
            about = describe(
                Result(facts.name, frame.image, frame.prediction, facts.spacing, facts.region), facts.bundle
            )
            found = {key: about.pop(key) for key in ("drift", "unlike_training", "labels")}
            if not count:
                about["clip"] = about.pop("frame")
                about["rate"] = facts.rate
                about["region"] = asdict(facts.region) if facts.region else None
                about["smoothing"] = facts.smoothing
                file.write(_dump(about)[:-1] + ', "frames": [')
            entry = {"frame": frame.number, "time_s": round(frame.time_s, 4), **found}
            file.write((",\n" if count else "\n") + _dump(entry))
            count += 1

        yield add
        file.write("\n]}\n")


@contextmanager
def _measures(paths: list[Path], facts: ClipFacts) -> Iterator[Add]:
    found: list[list[NerveMeasures]] = [[] for _ in facts.bundle.labels]
    times: list[float] = []

    def add(frame: ClipFrame) -> None:
        for label, measured in enumerate(found):
            measured.append(measure(frame.prediction, frame.image, facts.spacing, label, facts.region))
        # Frames of a live source may come at one and the same moment.
        times.append(max(frame.time_s, times[-1] + _INSTANT_S) if times else frame.time_s)

    yield add
    if not times:
        return
    labelled = list(zip(facts.bundle.labels, found, strict=True))
    tables = [measure_table(measured, times).assign(label=label) for label, measured in labelled]
    write_text(paths[0], pd.concat(tables).to_csv(index=False, lineterminator="\n"))
    clips = {label: measure_clip(measured, times) for label, measured in labelled}
    about = {"notice": NOTICE, "clip": facts.name, "labels": {label: clip.as_dict() for label, clip in clips.items()}}
    write_text(paths[1], _dump(about) + "\n")
    label = facts.bundle.labels[0]
    write_text(paths[2], measure_plot(clips[label], label).decode())


@contextmanager
def _dicom(formats: Sequence[str], folder: Path, facts: ClipFacts) -> Iterator[Add]:
    from edgefusion.inference.dicom_write import dicom_writer

    about: dict[str, Any] = {"spacing": facts.spacing, "region": facts.region, "rate": facts.rate}
    with dicom_writer(formats, facts.source, facts.bundle, folder, facts.name, **about) as add:
        yield lambda frame: add(frame.prediction, frame.image)


def _dump(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
