"""Decoding MPEG-2, H.264 and H.265 streams in DICOM files with FFmpeg, since pydicom has no decoder for them."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgefusion.data.readers import MAX_PIXELS

# Streams as such and in a container. FFmpeg would also read playlists, and open what they point to.
_CONTAINERS = "mpegvideo,h264,hevc,m4v,mpegts,mpeg,mov,mp4,m4a,3gp,3g2,mj2"


class Fragments(io.RawIOBase):
    """The fragments of a DICOM file as one file, read in place."""

    def __init__(self, stream: BinaryIO, fragments: Sequence[tuple[int, int]]) -> None:
        self._stream = stream
        self._fragments = [(offset, length) for offset, length in fragments if length]
        self._ends = list(accumulate(length for _, length in self._fragments))
        self._length = self._ends[-1] if self._ends else 0
        self._position = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes, which MP4 needs: its index may lie at the end."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place in the joined fragments."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """The place in the joined fragments."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer up to the end of the current fragment."""
        number = bisect_right(self._ends, self._position)
        if number == len(self._ends):
            return 0
        offset, length = self._fragments[number]
        left = self._ends[number] - self._position
        self._stream.seek(offset + length - left)
        content = self._stream.read(min(len(buffer), left))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)


def iter_video(
    stream: BinaryIO, fragments: Sequence[tuple[int, int]], height: int, width: int
) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of a video stream as H×W×3 uint8 RGB.

    Args:
        stream: The DICOM file.
        fragments: First byte and length of the parts of the video stream.
        height: Rows that the frames must have.
        width: Columns that the frames must have.

    Raises:
        ValueError: If the stream's frames have another size, or it holds no video.
        Exception: Of FFmpeg's kinds, at a frame that cannot be decoded.
    """
    import av

    from edgefusion.data.video import most_pixels

    source = io.BufferedReader(Fragments(stream, fragments))
    options = {"max_pixels": str(MAX_PIXELS), "format_whitelist": _CONTAINERS}
    with av.open(source, options=options, metadata_errors="replace") as container:
        if not container.streams.video:
            raise ValueError("its pixel data holds no video")
        video = container.streams.video[0]
        _check_size(video.codec_context, height, width)
        if height * width > most_pixels(video):
            raise ValueError(f"its frames have more than the {most_pixels(video)} pixels allowed")
        video.codec_context.options = {"max_pixels": str(most_pixels(video))}
        for frame in container.decode(video):
            _check_size(frame, height, width)
            yield frame.to_ndarray(format="rgb24")


def _check_size(sized: Any, height: int, width: int) -> None:
    if (sized.height, sized.width) != (height, width):
        raise ValueError(f"its video has {sized.width}×{sized.height} pixels, its header says {width}×{height}")
