"""Servers on the loopback whose network's answer is known in advance."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
import torch
import uvicorn
from numpy.typing import NDArray
from torch import Tensor, nn

from edgefusion.bundle import Bundle
from edgefusion.channels.recipe import build_stack
from edgefusion.config import ChannelRecipe
from edgefusion.inference.drift import COMPANION, Drift, plane_of
from edgefusion.inference.picture_statistics import STATISTICS, statistics
from edgefusion.inference.predictor import Predictor
from edgefusion.models.blocks import SegmentationOutput
from edgefusion.serving.app import make_app
from edgefusion.serving.limits import Limits
from edgefusion.serving.models import Models


class Spot(nn.Module):
    """Finds a spot that stands out by more than 3 standard deviations, and is sure of its presence then.

    The first label is the spot, the second all the rest.
    """

    def __init__(self, labels: int, seconds: float) -> None:
        super().__init__()
        self.labels = labels
        self.seconds = seconds

    def forward(self, x: Tensor) -> SegmentationOutput:
        time.sleep(self.seconds)
        spot = 5 * (x[:, :1] - 2)
        mask = torch.cat([spot, -spot], 1)[:, : self.labels]
        presence = (20 * (x.amax((1, 2, 3)) - 3))[:, None].expand(-1, self.labels)
        return SegmentationOutput(mask, -mask.abs(), presence)


def spot_network(labels: tuple[str, ...] = ("nerve",), seconds: float = 0.0) -> Predictor:
    bundle = Bundle(Spot(len(labels), seconds), "spot", ChannelRecipe(height=48, width=64), list(labels))
    if len(labels) > 1:
        # It knows the frame with the spot, and frames much like it.
        plane = plane_of(build_stack(_frame(), bundle.recipe), bundle.recipe)
        bundle.companions[COMPANION] = Drift(statistics(plane), np.eye(STATISTICS), 3.0).tensors()
    return Predictor(bundle)


@dataclass
class Server:
    url: str
    client: httpx.Client

    def predict(self, body: bytes, accept: str = "application/json", **query: Any) -> httpx.Response:
        headers = {"content-type": "application/octet-stream", "accept": accept}
        return self.client.post("/v1/predict", content=body, headers=headers, params=query)


@contextmanager
def running(
    limits: Limits | None = None,
    token: str | None = None,
    local: bool = True,
    seconds: float = 0.0,
    *,
    uploads: Path,
) -> Iterator[Server]:
    models = Models({"one": spot_network(seconds=seconds), "two": spot_network(("nerve", "vessel"))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(uploads))
        app = make_app(models, limits, local=local, token=token)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server ended while it started"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        yield Server(f"http://127.0.0.1:{port}", client)
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which servers of these tests make their own."""
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="session")
def server(uploads: Path) -> Iterator[Server]:
    with running(uploads=uploads) as started:
        yield started


@pytest.fixture(scope="session")
def start(uploads: Path) -> Callable[..., Any]:
    return partial(running, uploads=uploads)


def _frame(height: int = 96, width: int = 128) -> NDArray[np.uint8]:
    """A dim ramp with a bright spot, which the network finds."""
    frame = np.tile(np.linspace(20, 60, width), (height, 1)).astype(np.uint8)
    return np.asarray(cv2.circle(frame, (width // 2, height // 2), height // 10, 255, -1))


def _encode(frame: NDArray[Any], suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, frame)[1].tobytes()


@pytest.fixture(scope="session")
def spot() -> NDArray[np.uint8]:
    return _frame()


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    return _encode


@pytest.fixture(scope="session")
def spot_png() -> bytes:
    return _encode(_frame())


@pytest.fixture(scope="session")
def empty_png() -> bytes:
    """A frame in which nothing stands out."""
    return _encode(np.tile(np.linspace(20, 200, 128), (96, 1)).astype(np.uint8))
