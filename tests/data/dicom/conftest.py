"""What the tests of DICOM files share."""

from __future__ import annotations

import io
from collections.abc import Callable

import av
import numpy as np
import pytest


@pytest.fixture(scope="session")
def encode_video() -> Callable[[np.ndarray, str, str], bytes]:
    """Encodes frames N×H×W×3 with a codec in a container of FFmpeg's."""

    def encode(frames: np.ndarray, codec: str, container: str) -> bytes:
        buffer = io.BytesIO()
        with av.open(buffer, "w", format=container) as file:
            stream = file.add_stream(codec, rate=25)
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
            for frame in frames:
                file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            file.mux(stream.encode())
        return buffer.getvalue()

    return encode
