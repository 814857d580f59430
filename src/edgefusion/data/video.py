"""Reading video files through FFmpeg (PyAV), frame by frame."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from edgefusion.data.clip import Clip
from edgefusion.data.readers import MAX_PIXELS
from edgefusion.errors import DataError
from edgefusion.progress import say

SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".gif")
"""File name endings of videos, in lower case."""

MAX_HOURS = 6
"""Longer clips are refused: nobody scans that long, and a small file can claim any length."""

MAX_FRAME = 32 * 1024 * 1024
"""Bytes of a decoded frame, of which decoders keep up to 17: 4K with 10 bits and half the colours fits."""

# FFmpeg would also read texts, playlists and pictures under such names, and open what they point to.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg"

_LIMITED = 1
"""AVCOL_RANGE_MPEG: black is 16 and white 235."""

_RESUME = 300
"""After damage frames are left out up to the next key frame, but not more than this many: some streams have none."""

_FROM_LIMITED = np.clip(np.rint((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)


class VideoFrames(Iterator[NDArray[np.uint8]]):
    """The frames of an open video, H×W grey uint8, in the order in which they are shown.

    A frame that arrived damaged is left out, and so are the frames after it up to the next key frame, since they are
    built on it: a decoder would fill them with something that is not there.

    Args:
        container: What PyAV opened; it is closed when the frames end.
        stream: The one of its streams to decode.
        name: What to call it in messages.
    """

    def __init__(self, container: Any, stream: Any, name: str) -> None:
        self.time_s = 0.0
        """When the last frame is shown, in seconds after the first."""
        self.lost = 0
        """Frames that were left out so far because they were damaged."""
        self._name = name
        self._container = container
        self._stream = stream
        self._start: float | None = None
        self._shape: tuple[int, ...] | None = None
        self._waiting = 0
        self._frames = self._decode()

    def __next__(self) -> NDArray[np.uint8]:
        return next(self._frames)

    def close(self) -> None:
        """Close the file. Only from the thread that reads."""
        self._frames.close()
        self._container.close()

    def _decode(self) -> Generator[NDArray[np.uint8], None, None]:
        with self._container:
            # In this thread alone: others are busy with other frames, and an error belongs to its own packet then.
            self._stream.thread_type = "NONE"
            self._stream.codec_context.options = {"max_pixels": str(most_pixels(self._stream))}
            for packet in self._container.demux(self._stream):
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    self._leave_out()
                    continue
                for frame in frames:
                    if self._is_sound(frame):
                        yield self._grey(frame)

    def _leave_out(self) -> None:
        self.lost += 1
        self._waiting = _RESUME

    def _is_sound(self, frame: Any) -> bool:
        if frame.is_corrupt:
            self._leave_out()
            return False
        if self._waiting and not frame.key_frame:
            self._waiting -= 1
            self.lost += 1
            return False
        self._waiting = 0
        return True

    def _grey(self, frame: Any) -> NDArray[np.uint8]:
        if frame.time is not None:
            if self._start is None:
                self._start = frame.time
            self.time_s = frame.time - self._start
        grey = _as_grey(frame)
        if self._shape is None:
            self._shape = grey.shape
        if grey.shape != self._shape:
            change = f"changes its size from {_size(self._shape)} to {_size(grey.shape)}"
            raise DataError(f"{self._name} {change} at {self.time_s:.2f} s.", "Cut it there.")
        return grey


def open_video(path: Path | str) -> Clip:
    """Open a video file.

    Frames are decoded one by one when they are asked for. They are grey: the luma, stretched to full range where the
    file keeps black at 16 and white at 235, and turned upright where the file says how it was held. Pixels are taken
    as they are stored, also where the file says that they are not square.

    Args:
        path: MP4, MOV, AVI, Matroska, WebM, GIF or MPEG file of at most ``MAX_HOURS``; a frame has at most
            ``MAX_FRAME`` bytes.

    Returns:
        The clip. Its ``read`` gives ``VideoFrames``; what had to be left out is said at the end.

    Raises:
        DataError: If the file is missing, empty, damaged, too large, or holds no video.
    """
    path = Path(path).resolve()
    container, stream = _open(path)
    with container:
        rate = stream.average_rate or stream.guessed_rate
        return Clip(path, lambda: _Reported(path), stream.frames or None, float(rate) if rate else None)


class _Reported(VideoFrames):
    """The frames of a file, which at its end says what was left out or is missing."""

    def __init__(self, path: Path) -> None:
        container, stream = _open(path)
        self._announced = stream.frames
        self._duration = _seconds(container, stream)
        self._count = 0
        super().__init__(container, stream, str(path))

    def __next__(self) -> NDArray[np.uint8]:
        try:
            frame = super().__next__()
        except StopIteration:
            self._report()
            raise
        except (av.FFmpegError, OSError) as error:
            # The demuxer met something that it cannot step over.
            say(f"{self._name}: {error.strerror or error}.")
            self._report()
            raise StopIteration from None
        self._count += 1
        return frame

    def _report(self) -> None:
        if not self._count:
            raise DataError(f"{self._name} is damaged: no frame of it can be decoded.", "Copy or export it again.")
        if self.lost:
            say(f"{self._name}: {self.lost} frames are damaged or built on damaged ones, and were left out.")
        seen = self._count + self.lost
        step = self.time_s / max(1, self._count - 1)
        if seen < self._announced or (not self._announced and self._duration > self.time_s + step + 1):
            missing = self._announced - seen if self._announced else round((self._duration - self.time_s) / (step or 1))
            say(f"{self._name} was cut off: {self._count} frames, to {self.time_s:.2f} s; about {missing} are missing.")


def _open(path: Path) -> tuple[Any, Any]:
    """The file and its stream of pictures, after all checks that need no decoding."""
    try:
        if not path.stat().st_size:
            raise DataError(f"{path} is empty (0 bytes).", "Copy or export it again.")
        options = {"format_whitelist": _CONTAINERS, "max_pixels": str(MAX_PIXELS)}
        # A title in another encoding is no fault of the pictures'.
        container = av.open(str(path), options=options, metadata_errors="replace")
    except (av.error.InvalidDataError, av.error.ArgumentError):
        raise DataError(
            f"{path} is not a video that can be read, or was cut off.", "Copy it again, or export it as MP4 (H.264)."
        ) from None
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        return container, _stream(container, path)
    except BaseException:
        container.close()
        raise


def _stream(container: Any, path: Path) -> Any:
    cover = av.stream.Disposition.attached_pic
    pictures = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not pictures:
        others = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise DataError(f"{path} has no pictures (it holds {others}).", "Export it again, with the video.")
    stream = pictures[0]
    if stream.codec_context is None:
        raise DataError(f"{path} is coded in a way that is not known here.", "Export it as MP4 (H.264).")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > most_pixels(stream):
        what = f"{path} claims {width}×{height} pixels, more than the {most_pixels(stream)} allowed."
        raise DataError(what, "Crop it or scale it down.")
    hours = _seconds(container, stream) / 3600
    if hours > MAX_HOURS:
        raise DataError(f"{path} claims to last {hours:.1f} hours, more than the {MAX_HOURS} allowed.", "Cut it.")
    return stream


def most_pixels(stream: Any) -> int:
    """How many pixels a frame of a stream may have, by the format of its pixels."""
    pixels = stream.codec_context.format
    return min(MAX_PIXELS, MAX_FRAME * 8 // (max(1, pixels.padded_bits_per_pixel) if pixels else 32))


def _seconds(container: Any, stream: Any) -> float:
    """How long the file says it is, 0 where it does not say."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return float(container.duration / av.time_base) if container.duration and len(container.streams) == 1 else 0.0


def _as_grey(frame: Any) -> NDArray[np.uint8]:
    # FFmpeg takes YUV of unstated range for limited and grey for full, as it should, but full it believes grey to be
    # even where the file says otherwise.
    source = frame.reformat(format="rgb24") if frame.format.name == "pal8" else frame
    grey = np.asarray(source.to_ndarray(format="gray"), dtype=np.uint8)
    if frame.format.name.startswith("gray") and frame.color_range == _LIMITED:
        grey = np.asarray(cv2.LUT(grey, _FROM_LIMITED), dtype=np.uint8)
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(grey, turns)) if turns else grey


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}×{shape[0]}"
