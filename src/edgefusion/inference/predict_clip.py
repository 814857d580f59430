"""Predict a clip, or what a live source sends, frame by frame into files."""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from edgefusion.channels.bands import cores
from edgefusion.data.clip import Clip, Region, Spacing
from edgefusion.data.live import LiveFrames, public_name
from edgefusion.data.region import FRAMES, find_region
from edgefusion.data.video import VideoFrames
from edgefusion.errors import DataError, UsageError
from edgefusion.inference.clip_writers import ClipFacts, ClipFrame, clip_writers
from edgefusion.inference.predictor import Predictor
from edgefusion.inference.stream import Stream
from edgefusion.progress import say, track

Crop = Region | Literal["auto", "none"]
"""Where to look: a region, that of the file or else what moves, or all of the frame."""

_PAGES_RATE = 10.0
"""Frames a second of what has no rate of its own, such as the pages of a TIFF."""


def read_crop(text: str) -> Crop:
    """Read ``auto``, ``none`` or ``TOP,LEFT,HEIGHT,WIDTH``, in pixels.

    Raises:
        UsageError: If it is something else.
    """
    if text == "auto":
        return "auto"
    if text == "none":
        return "none"
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts) or min(map(int, parts[2:])) < 1:
        raise UsageError(f"'{text}' is not a crop.", "Give auto, none, or TOP,LEFT,HEIGHT,WIDTH in pixels.")
    return Region(*map(int, parts))


def predict_clip(
    clip: Clip,
    predictor: Predictor,
    output: Path,
    name: str,
    formats: Sequence[str],
    *,
    spacing: Spacing | None = None,
    crop: Crop = "auto",
    smoothing: float = 0.0,
) -> dict[str, Any]:
    """Find the labels in every frame of a clip. No frame is dropped; what is damaged in the file is left out.

    Args:
        clip: The frames.
        predictor: The network.
        output: Folder of the results.
        name: How the files begin.
        formats: Of ``CLIP_FORMATS``, see ``clip_writers``.
        spacing: Height and width of a pixel in mm; None takes the clip's.
        crop: "auto" takes the region that the file states, or finds it.
        smoothing: See ``Smoothing``.

    Returns:
        ``frames``: how many were written; ``dropped`` 0; ``damaged``: how many were left out; and where the bundle can
        tell, ``unlike_training``: how many are unlike what the network knows, see ``Prediction``.

    Raises:
        DataError: If the clip cannot be read.
        UsageError: If the crop does not lie in the frames.
    """
    region = _region_of(clip, crop)
    rate = clip.rate or _PAGES_RATE
    reader = clip.read()
    times: deque[tuple[int, float]] = deque()

    def timed() -> Iterator[NDArray[Any]]:
        for index, image in enumerate(reader):
            times.append((index, reader.time_s if isinstance(reader, VideoFrames) else index / rate))
            yield image

    spacing = spacing or clip.spacing
    facts = ClipFacts(name, rate, clip.path, spacing, region, smoothing, predictor.bundle)
    with (
        _a_core_left(),
        predictor.stream(timed(), smoothing=smoothing, spacing=spacing, region=region) as stream,
        clip_writers(formats, output, facts) as add,
    ):
        strange = []
        for prediction in track(stream, f"Predicting {clip.path.name}", clip.count):
            strange.append(prediction.unlike_training)
            add(_frame(stream, times, prediction))
        if stream.last is None:
            raise DataError(f"{clip.path} holds no frame.", "Copy or export it again.")
    return {
        "frames": stream.last.index + 1,
        "dropped": 0,
        "damaged": reader.lost if isinstance(reader, VideoFrames) else 0,
        **({} if None in strange else {"unlike_training": sum(map(bool, strange))}),
    }


def predict_live(
    source: LiveFrames,
    predictor: Predictor,
    output: Path,
    name: str,
    formats: Sequence[str],
    *,
    crop: Crop = "auto",
    smoothing: float = 0.0,
) -> dict[str, Any]:
    """Find the labels in the newest frame of a live source, again and again, until it ends or Ctrl-C is pressed.

    The arguments are those of ``predict_clip``; with "auto", the first frames are only looked at to find the region.

    Returns:
        As ``predict_clip``; ``dropped`` counts the frames that came while the network was busy.

    Raises:
        DataError: If not a single frame was predicted, or the source sends what cannot be used.
        UsageError: If the crop does not lie in the frames.
    """
    region = crop if isinstance(crop, Region) else None
    if crop == "auto":
        region = _found(source, public_name(source.url))
    rate = source.rate or 30.0
    times: deque[tuple[int, float]] = deque()

    def timed() -> Iterator[NDArray[np.uint8]]:
        for index, image in enumerate(source):
            times.append((index, source.time_s))
            yield image

    facts = ClipFacts(name, rate, Path(source.url), None, region, smoothing, predictor.bundle)
    count, start = 0, 0.0
    with (
        _a_core_left(),
        _until_interrupted(source.stop) as until,
        predictor.stream(timed(), policy="latest", smoothing=smoothing, region=region) as stream,
        clip_writers(formats, output, facts) as add,
    ):
        try:
            for prediction in track(until(stream), f"Predicting {public_name(source.url)}", None):
                frame = _frame(stream, times, prediction)
                start = start if count else frame.time_s
                add(frame._replace(time_s=frame.time_s - start))
                count += 1
        except DataError as error:
            # What was recorded until then is worth keeping.
            if not count:
                raise
            say(str(error))
        source.stop()
        if not count:
            raise DataError(f"{public_name(source.url)} ended before a frame was predicted.", source.ended)
    return {"frames": count, "dropped": stream.dropped, "damaged": source.lost}


def live_name(now: datetime) -> str:
    """How the files of a recording that begins now are called."""
    return f"live-{now:%Y%m%d-%H%M%S}"


def _region_of(clip: Clip, crop: Crop) -> Region | None:
    if crop == "none":
        return None
    if isinstance(crop, Region):
        return crop
    if clip.region is not None:
        return clip.region
    frames = clip.read()
    try:
        return _found(frames, str(clip.path))
    finally:
        if isinstance(frames, VideoFrames):
            frames.close()


def _found(frames: Iterator[NDArray[Any]], name: str) -> Region | None:
    """What is found in the first frames, None where it is all of the frame."""
    first = next(frames, None)
    if first is None:
        return None
    region = find_region(chain([first], islice(frames, FRAMES - 1)))
    if region is None or (region.height, region.width) == first.shape:
        return None
    place = f"{region.top},{region.left},{region.height},{region.width}"
    say(f"{name}: the image was found at {place} (top, left, height, width). --crop none takes all of the frame.")
    return region


def _frame(stream: Stream, times: deque[tuple[int, float]], prediction: Any) -> ClipFrame:
    step = stream.last
    assert step is not None
    index, time_s = times.popleft()
    while index < step.index:  # dropped frames have a time, too
        index, time_s = times.popleft()
    return ClipFrame(index, time_s, step.image, prediction)


@contextmanager
def _a_core_left() -> Iterator[None]:
    """Leave one core to the stages beside the network: where PyTorch takes all, its threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, cores() - 1)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _until_interrupted(on_stop: Callable[[], None]) -> Iterator[Any]:
    """Yield a wrapper of an iterator that Ctrl-C ends, but never in the midst of what is done with an item."""
    waits, stopped = False, False

    def stop(*_: int | FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        on_stop()
        if waits:
            raise KeyboardInterrupt

    def until(items: Iterator[Any]) -> Iterator[Any]:
        nonlocal waits
        while not stopped:
            try:
                waits = True
                item = next(items)
                waits = False
            except (StopIteration, KeyboardInterrupt):
                return
            yield item

    if threading.current_thread() is not threading.main_thread():
        yield until
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield until
    finally:
        signal.signal(signal.SIGINT, before)
