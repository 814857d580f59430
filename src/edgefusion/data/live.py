"""Frames from a camera, a scanner's video output, or the network, as they come."""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Iterator
from types import TracebackType
from urllib.parse import urlsplit, urlunsplit

import av
import numpy as np
from numpy.typing import NDArray

from edgefusion.data.readers import MAX_PIXELS
from edgefusion.data.video import VideoFrames
from edgefusion.errors import DataError, UsageError
from edgefusion.progress import say

SCHEMES = ("rtsp", "rtsps", "udp", "tcp", "http", "https")
"""Beginnings of the addresses that are opened."""

_DEVICE = re.compile(r"/dev/video\d+")

_RETRY_S = 0.5

# Studying the stream for seconds, as FFmpeg does by default, would make a late picture. The frames that were studied
# come first and fast; whoever wants the newest drops them.
_LOW_LATENCY = {"probesize": "500000", "analyzeduration": "500000"}

_BOUNDS = {"max_pixels": str(MAX_PIXELS)}

_OPTIONS = {
    # Over TCP no packet is lost; a few milliseconds more are the price.
    "rtsp": {"rtsp_transport": "tcp"},
    "rtsps": {"rtsp_transport": "tcp"},
    # Some seconds of video wait here while the program starts; what does not fit is lost, and not an error.
    "udp": {"fifo_size": "50000", "overrun_nonfatal": "1", "buffer_size": "4000000"},
}


def is_live(source: str) -> bool:
    """Whether this is the address of a live source and not of a file."""
    return bool(_DEVICE.fullmatch(source)) or (source.partition("://")[0].lower() in SCHEMES and "://" in source)


def public_name(url: str) -> str:
    """The address without the user's name and password."""
    if _DEVICE.fullmatch(url):
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


class LiveFrames(Iterator[NDArray[np.uint8]]):
    """The frames of a live source, H×W grey uint8. Made by ``open_live``; for use in a ``with`` block.

    When the source breaks off, it is opened again and again for ``patience_s``. Iteration ends when the source says
    that it has ended, or when that time has passed without a frame; ``ended`` then says which.
    """

    def __init__(self, url: str, frames: VideoFrames, rate: float | None, timeout_s: float, patience_s: float) -> None:
        self.url = url
        """As it was given."""
        self.rate = rate
        """Frames a second, None where the source does not say."""
        self.time_s = 0.0
        """When the last frame came, in seconds after the first."""
        self.reconnects = 0
        """How often the source was opened again."""
        self.ended = ""
        """Why there are no more frames; empty as long as there may be some."""
        self._name = public_name(url)
        self._timeout_s, self._patience_s = timeout_s, patience_s
        self._stopped = False
        self._current: VideoFrames | None = frames
        self._lost_before = 0
        self._shape: tuple[int, ...] | None = None
        self._frames = self._follow()

    @property
    def lost(self) -> int:
        """Frames that were left out so far because they arrived damaged."""
        return self._lost_before + (self._current.lost if self._current else 0)

    def __next__(self) -> NDArray[np.uint8]:
        return next(self._frames)

    def stop(self) -> None:
        """Let the frames end at the next one, or when the source is silent for its timeout. From any thread."""
        self._stopped = True

    def close(self) -> None:
        """Close the source. Only from the thread that reads."""
        self._frames.close()
        self._leave()

    def __enter__(self) -> LiveFrames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _follow(self) -> Generator[NDArray[np.uint8], None, None]:
        first = heard = time.monotonic()
        problem = "it was stopped"
        while not self._stopped:
            try:
                for frame in self._current or ():
                    heard = time.monotonic()
                    self.time_s = heard - first if self._shape else 0.0
                    first = first if self._shape else heard
                    yield self._checked(frame)
                    if self._stopped:
                        break
                if self._current is not None:
                    problem = problem if self._stopped else "the stream has ended"
                    break
            except (av.FFmpegError, OSError) as error:
                problem = _reason(error)
            self._leave()
            if time.monotonic() - heard >= self._patience_s:
                problem = f"no frame came for {self._patience_s:g} s ({problem})"
                break
            time.sleep(min(_RETRY_S, self._patience_s / 4))
            self._return()
        self.ended = problem
        self._leave()
        say(f"{self._name}: {problem}.")

    def _checked(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        self._shape = self._shape or frame.shape
        if frame.shape != self._shape:
            # After a reconnection; within a stream VideoFrames says so.
            raise DataError(f"{self._name} came back with frames of another size.", "Start again.")
        return frame

    def _leave(self) -> None:
        if self._current is not None:
            self._lost_before += self._current.lost
            self._current.close()
            self._current = None

    def _return(self) -> None:
        try:
            self._current, _ = _connect(self.url, self._timeout_s)
        except (av.FFmpegError, OSError, DataError):
            return
        self.reconnects += 1


def open_live(url: str, *, timeout_s: float = 5.0, patience_s: float = 10.0) -> LiveFrames:
    """Open a live source with as little delay as can be had.

    Args:
        url: ``/dev/videoN`` (a camera or frame grabber, V4L2), or an address: ``rtsp://``, ``udp://`` (MPEG-TS; to
            listen for a multicast group or on a port, ``udp://@239.0.0.1:5000`` or ``udp://0.0.0.0:5000``),
            ``http://`` ...
        timeout_s: How long to wait for the source to answer, and between two frames, before trying anew.
        patience_s: How long to try, before the frames end.

    Returns:
        Its frames.

    Raises:
        UsageError: If this is no address of a live source.
        DataError: If it does not answer, or sends no video.
    """
    if not is_live(url):
        raise UsageError(f"{url} is no live source.", f"Give /dev/videoN, or an address with {', '.join(SCHEMES)}.")
    try:
        frames, rate = _connect(url, timeout_s)
    except (av.FFmpegError, OSError) as error:
        remedy = "Is it there, and is it sending?"
        raise DataError(f"{public_name(url)} cannot be opened: {_reason(error)}.", remedy) from error
    return LiveFrames(url, frames, rate, timeout_s, patience_s)


def _connect(url: str, timeout_s: float) -> tuple[VideoFrames, float | None]:
    scheme = url.partition("://")[0].lower()
    device = _DEVICE.fullmatch(url) is not None
    container = av.open(
        url,
        format="v4l2" if device else None,
        options=_LOW_LATENCY | _BOUNDS | _OPTIONS.get(scheme, {}),
        metadata_errors="replace",
        timeout=(max(timeout_s, 0.1), max(timeout_s, 0.1)),
    )
    try:
        if not container.streams.video:
            raise DataError(f"{public_name(url)} sends no video.")
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
        return VideoFrames(container, stream, public_name(url)), float(rate) if rate else None
    except BaseException:
        container.close()
        raise


def _reason(error: Exception) -> str:
    if isinstance(error, av.error.ExitError):
        return "it does not answer"
    return str(getattr(error, "strerror", None) or error)
