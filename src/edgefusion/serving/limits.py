"""What the server takes on: beyond these it answers in words, with a status code of its own."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Bounds of one server. The defaults fit a machine with two cores and 4 GB of memory."""

    upload_bytes: int = 256 * MIB
    """Bytes of one upload; beyond: 413. It waits on the disk, so memory does not bound it."""
    upload_seconds: float = 120.0
    """How long an upload may take to arrive; beyond: 408."""
    side: int = 8192
    """Longest side of a frame in pixels; beyond: 413."""
    least_side: int = 16
    """Shortest side of a frame in pixels; below: 422."""
    pixels: int = 8 * MIB
    """Pixels of one frame, room for 3840×2160; beyond: 413."""
    frames: int = 1200
    """Frames of one clip, forty seconds at 30 a second; beyond: 413 from the API, the page shows so many."""
    seconds: float = 120.0
    """How long a request of the API may compute; beyond: 503."""
    waiting: int = 16
    """Requests that may be in the house besides the one that computes; beyond: 503 with Retry-After."""
    sessions: int = 16
    """Files that are open on pages; the one that was not used for longest gives way."""
    session_bytes: int = 512 * MIB
    """Bytes of all open files together, their uploads on the disk included."""
    session_seconds: float = 1800.0
    """An open file that nobody looked at for so long is deleted."""
    live: int = 2
    """Live views at a time."""
    live_bytes: int = 2 * MIB
    """Bytes of one frame of a live view."""
