"""A live view: frames come over a WebSocket, and the newest one wins."""

from __future__ import annotations

import asyncio
import io
import json
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from numpy.typing import NDArray
from PIL import Image

from edgefusion.data.clip import Clip
from edgefusion.errors import EdgeFusionError
from edgefusion.inference.predictor import Predictor
from edgefusion.serving.answers import predict_frame
from edgefusion.serving.guard import matches
from edgefusion.serving.intake import check_size
from edgefusion.serving.limits import Limits
from edgefusion.serving.problems import Problem
from edgefusion.serving.service import Service

_HELLO_S = 5.0
_NUMBER = 4

# Close codes of RFC 6455 and its registry.
_UNACCEPTABLE, _POLICY, _TOO_BIG, _TRY_AGAIN_LATER = 1003, 1008, 1009, 1013


class _Newest:
    """Room for one frame: a newer one replaces it."""

    def __init__(self) -> None:
        self.dropped = 0
        self._frame: bytes | None = None
        self._arrived = asyncio.Event()

    def put(self, frame: bytes) -> None:
        self.dropped += self._frame is not None
        self._frame = frame
        self._arrived.set()

    async def take(self) -> bytes:
        await self._arrived.wait()
        self._arrived.clear()
        frame, self._frame = self._frame, None
        assert frame is not None
        return frame


def routes(service: Service) -> APIRouter:
    """The route of the live view, over the parts of a server."""
    router = APIRouter()
    views = 0

    @router.websocket("/v1/live")
    async def live(socket: WebSocket) -> None:
        """Predict the newest frame, again and again.

        The client's first message is JSON: ``{"token": ..., "model": ...}``, both may be absent. Then every message is
        binary: a number of the client's, 4 bytes big-endian, and a JPEG or PNG. The server answers with JSON: the
        frame's ``number``, what ``/v1/predict`` says of a frame, ``seconds`` that the server took, and how many frames
        were ``dropped`` so far because newer ones had come.
        """
        nonlocal views
        await socket.accept()
        views += 1
        try:
            if views > service.limits.live:
                await _refuse(socket, _TRY_AGAIN_LATER, "Too many live views are open; close one of them.")
                return
            await _serve(socket, service)
        except WebSocketDisconnect:
            pass
        finally:
            views -= 1

    return router


async def _serve(socket: WebSocket, service: Service) -> None:
    try:
        async with asyncio.timeout(_HELLO_S):
            hello = json.loads(await socket.receive_text())
        token, model = hello.get("token") or "", hello.get("model")
        allowed = matches(service.token, str(token))
        name, predictor = service.models.get(None if model is None else str(model))
    except Problem as problem:
        await _refuse(socket, _UNACCEPTABLE, str(problem))
        return
    except (TimeoutError, ValueError, KeyError, AttributeError, RecursionError):
        await _refuse(socket, _UNACCEPTABLE, "The first message must be a JSON object with token and model.")
        return
    if not allowed:
        await _refuse(socket, _POLICY, "This server asks for its token.")
        return
    await socket.send_text(json.dumps({"ready": name, "labels": predictor.bundle.labels}))
    newest = _Newest()
    answering = asyncio.create_task(_answer(socket, service, newest, name, predictor))
    try:
        while True:
            frame = await socket.receive_bytes()
            if len(frame) > service.limits.live_bytes:
                await _refuse(socket, _TOO_BIG, "The frame is too large; scale it down.")
                return
            newest.put(frame)
    except KeyError:
        await _refuse(socket, _UNACCEPTABLE, "Frames are binary messages.")
    finally:
        answering.cancel()
        with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
            await answering
        service.metrics.dropped.inc(newest.dropped)


async def _answer(socket: WebSocket, service: Service, newest: _Newest, name: str, predictor: Predictor) -> None:
    while True:
        message = await newest.take()
        number, started = int.from_bytes(message[:_NUMBER], "big"), perf_counter()
        answer: dict[str, Any]
        try:
            answer = await service.engine.run(_predict, message[_NUMBER:], predictor, service.limits)
            service.metrics.frames.labels(name).inc()
        except (Problem, EdgeFusionError) as error:
            answer = {"error": str(error)}
        seconds = round(perf_counter() - started, 4)
        await socket.send_text(
            json.dumps({"number": number, "seconds": seconds, "dropped": newest.dropped} | answer, allow_nan=False)
        )


def _predict(content: bytes, predictor: Predictor, limits: Limits) -> dict[str, Any]:
    image = _decode(content, limits)
    return predict_frame(0, image, Clip(Path("/live"), lambda: iter([image]), 1), predictor)


def _decode(content: bytes, limits: Limits) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as picture:
            check_size(*picture.size, limits)
            return np.asarray(picture.convert("L"))
    except Problem:
        raise
    # Decoders answer damaged frames with nearly every kind of exception.
    except Exception as error:
        raise Problem(422, "A frame is no JPEG or PNG, or is damaged.") from error


async def _refuse(socket: WebSocket, code: int, words: str) -> None:
    await socket.send_text(json.dumps({"error": words}))
    await socket.close(code)
