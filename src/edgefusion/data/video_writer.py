"""Writing an MP4 video that every player shows."""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from edgefusion.errors import UsageError
from edgefusion.files import atomic_path
from edgefusion.progress import say

_TICKS = 60_000
"""Of a second, in which the time of a frame is noted: exact for the usual rates, and few enough for MPEG-4 Part 2."""

_ENCODERS = {
    # At this factor tissue looks as it did; the preset costs the least time that still gives a third of the size.
    "libx264": {"preset": "veryfast", "crf": "20"},
    "libopenh264": {},
    "mpeg4": {"qmin": "2", "qmax": "4"},
}
"""In the order of preference, with their settings."""


class VideoWriter:
    """Writes frames into an MP4 file: H.264, 4:2:0. For use in a ``with`` block.

    The file appears, or replaces an older one, when the block ends; where it ends by an exception, nothing changes.
    4:2:0 needs even sizes: an odd frame gets its last column or row twice.

    Args:
        path: The file, whose name ends in ``.mp4``.
        rate: Frames a second, for frames that come without a time.
    """

    def __init__(self, path: Path, rate: float = 30.0) -> None:
        self.path = path
        self.count = 0
        """Frames written so far."""
        self._rate = rate
        self._cleanup = ExitStack()
        self._container: Any = None
        self._stream: Any = None
        self._shape: tuple[int, ...] = ()
        self._last = -1

    def __enter__(self) -> VideoWriter:
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path))
            # With its index in front, a player need not have the whole file to begin.
            self._container = stack.enter_context(
                av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"})
            )
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and not self.count:
                raise UsageError(f"{self.path}: a video needs at least one frame.")
            if error is None:
                self._container.mux(self._stream.encode(None))
        except BaseException as problem:
            self._cleanup.__exit__(type(problem), problem, problem.__traceback__)
            raise
        self._cleanup.__exit__(kind, error, trace)

    def write(self, frame: NDArray[np.uint8], time_s: float | None = None) -> None:
        """Add a frame.

        Args:
            frame: H×W grey, or H×W×3 red, green, blue; uint8. All of one size.
            time_s: When it is shown, in seconds from the start; by default one step of the rate after another.

        Raises:
            UsageError: If the frame has another size than the first.
        """
        if self._stream is None:
            self._shape = frame.shape
            self._stream = self._start(frame.shape[0], frame.shape[1])
        if frame.shape != self._shape:
            raise UsageError(f"{self.path}: a frame of shape {frame.shape} follows one of {self._shape}.")
        if frame.ndim == 2:
            frame = np.asarray(cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB), np.uint8)
        bottom, right = frame.shape[0] % 2, frame.shape[1] % 2
        if bottom or right:
            frame = np.pad(frame, ((0, bottom), (0, right), (0, 0)), mode="edge")
        # In limited range, as FFmpeg and all players expect it, and in a fifth of FFmpeg's own time.
        planes = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420), np.uint8)
        picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        time = self.count / self._rate if time_s is None else time_s
        picture.pts = self._last = max(self._last + 1, round(time * _TICKS))
        picture.time_base = Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(picture))
        self.count += 1

    def _start(self, height: int, width: int) -> Any:
        name = encoder()
        stream = self._container.add_stream(name, rate=Fraction(self._rate).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, _TICKS)
        stream.options = _ENCODERS[name]
        return stream


def encoder() -> str:
    """The best encoder that this FFmpeg has; says so if it is not one for H.264."""
    for name in _ENCODERS:
        try:
            av.Codec(name, "w")
        except ValueError:
            continue
        if name == "mpeg4":
            say("No encoder for H.264 is installed: the video is MPEG-4 Part 2, which browsers do not show.")
        return name
    raise UsageError("PyAV has no encoder for MP4.", "Install the 'av' package from PyPI.")
