"""The parts of one running server, together."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefusion.data.clip import Clip
from edgefusion.serving.answers import picture_of
from edgefusion.serving.engine import Engine
from edgefusion.serving.intake import Upload
from edgefusion.serving.limits import Limits
from edgefusion.serving.metrics import Metrics
from edgefusion.serving.models import Models
from edgefusion.serving.sessions import Session, Sessions


class Service:
    """What the routes share.

    Args:
        models: The networks on offer.
        limits: Of this server.
        token: What clients must bring, None for nothing.
    """

    def __init__(self, models: Models, limits: Limits, token: str | None) -> None:
        self.models = models
        self.limits = limits
        self.token = token
        self.engine = Engine(limits.waiting)
        self.sessions = Sessions(limits, self.engine.later)
        self.metrics = Metrics(self.engine, self.sessions)
        self.folder = Path(tempfile.mkdtemp(prefix="edgefusion-"))
        """Where uploads wait, readable by this user alone; deleted at the end."""

    def open_session(self, clip: Clip, frames: Iterator[NDArray[Any]], upload: Upload | None) -> Session:
        """Open a clip for a page and decode its first frame; runs in the engine."""
        session = Session(clip, frames, self.limits, upload)
        session.frame(0)
        return session

    def warm(self) -> None:
        """Let the filters compile and the networks run once, so that the first visitor does not wait for that."""
        clip = Clip(self.folder, lambda: iter([]), 1)
        frame = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
        for model in self.models.describe():
            _, predictor = self.models.get(model["name"])
            for layer in ("denoised", "edges", "mask"):
                picture_of(layer, frame, clip, predictor)

    def close(self) -> None:
        """End the work and delete all uploads."""
        self.engine.close()
        shutil.rmtree(self.folder, ignore_errors=True)
