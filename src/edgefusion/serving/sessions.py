"""Files that are open on pages: their frames and what was found, bounded in memory and in time."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefusion.data.clip import Clip
from edgefusion.inference.predictor import Predictor
from edgefusion.serving.answers import png, predict_frame
from edgefusion.serving.intake import Upload
from edgefusion.serving.limits import MIB, Limits
from edgefusion.serving.problems import Problem


class Session:
    """An open file. Frames are decoded as far as somebody asks, and kept compressed, so that any can be shown again.

    Only pieces of the engine call its methods, one at a time.

    Args:
        clip: The frames.
        frames: An iterator over them, checked.
        limits: Of the server.
        upload: The file behind the clip, deleted with the session; None for a clip that has none.
    """

    def __init__(self, clip: Clip, frames: Iterator[NDArray[Any]], limits: Limits, upload: Upload | None) -> None:
        self.id = secrets.token_urlsafe(18)
        self.clip = clip
        self.kind = "example" if upload is None else upload.kind
        self.upload = upload
        self.complete = False
        """Whether the number of frames is known to be ``count``."""
        self.note = ""
        """Why there are no more frames, where that is not simply the clip's end."""
        self.bytes = 0 if upload is None else upload.path.stat().st_size
        self.touched = time.monotonic()
        self._limits = limits
        self._source = frames
        self._frames: list[bytes] = []
        self._results: dict[tuple[str, int], str] = {}

    @property
    def count(self) -> int:
        """Frames decoded so far."""
        return len(self._frames)

    def reaches(self, index: int) -> bool:
        """Decode up to a frame; whether the clip has it."""
        while len(self._frames) <= index and not self.complete:
            self._decode()
        return index < len(self._frames)

    def frame(self, index: int) -> NDArray[Any]:
        """A frame, H×W uint8 or uint16.

        Raises:
            Problem: 404 beyond the clip's end.
        """
        if not self.reaches(index):
            raise Problem(HTTPStatus.NOT_FOUND, f"The clip has {self.count} frames, counted from 0.")
        encoded = np.frombuffer(self._frames[index], np.uint8)
        return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED))

    def result(self, index: int, model: str, predictor: Predictor) -> str | None:
        """What a network says about a frame: ``answers.predict_frame`` as JSON; None beyond the clip's end."""
        if not self.reaches(index):
            return None
        if (model, index) not in self._results:
            found = predict_frame(index, self.frame(index), self.clip, predictor)
            # As text, which takes a tenth of the memory of so many small lists.
            text = json.dumps(found, ensure_ascii=False, allow_nan=False)
            self._results[model, index] = text
            self.bytes += len(text)
        return self._results[model, index]

    def close(self) -> None:
        """Let go of the frames and delete the file."""
        self.complete = True
        self._frames.clear()
        self._results.clear()
        close = getattr(self._source, "close", None)
        if close is not None:
            close()
        if self.upload is not None:
            self.upload.delete()

    def _decode(self) -> None:
        if self.bytes > self._limits.session_bytes or len(self._frames) == self._limits.frames:
            self._end(f"Only the first {len(self._frames)} frames are shown; the clip is longer than fits here.")
            return
        try:
            frame = next(self._source, None)
        except Problem as problem:
            if not self._frames:
                raise
            self._end(f"Only the first {len(self._frames)} frames are shown. {problem}")
            return
        if frame is None:
            self._end("")
            return
        encoded = png(frame)
        self._frames.append(encoded)
        self.bytes += len(encoded)

    def _end(self, note: str) -> None:
        self.complete, self.note = True, note


class Sessions:
    """All open files of a server.

    Args:
        limits: Of the server.
        discard: Called with ``Session.close`` of a session that has to go, to have it done in the engine's thread.
    """

    def __init__(self, limits: Limits, discard: Callable[[Callable[[], None]], None]) -> None:
        self._limits = limits
        self._discard = discard
        self._open: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._open)

    @property
    def bytes(self) -> int:
        """Bytes of all open files together."""
        return sum(session.bytes for session in self._open.values())

    def add(self, session: Session) -> None:
        """Keep a session; older ones give way where there are too many."""
        self._open[session.id] = session
        self.tidy()

    def get(self, name: str) -> Session:
        """An open session.

        Raises:
            Problem: 404 where there is none of that id, or no more.
        """
        self.tidy()
        session = self._open.get(name)
        if session is None:
            raise Problem(HTTPStatus.NOT_FOUND, "This file is not open here any more. Open it again.")
        session.touched = time.monotonic()
        return session

    def remove(self, name: str) -> None:
        """Close a session, if it is there."""
        session = self._open.pop(name, None)
        if session is not None:
            self._discard(session.close)

    def tidy(self) -> None:
        """Close what was not used for too long, and while there is too much, what was not used for longest."""
        now = time.monotonic()
        oldest_first = sorted(self._open.values(), key=lambda session: session.touched)
        for session in oldest_first:
            full = len(self._open) > self._limits.sessions or self.bytes > self._limits.session_bytes + MIB
            idle = now - session.touched > self._limits.session_seconds
            if idle or (full and session is not oldest_first[-1]):
                self.remove(session.id)
