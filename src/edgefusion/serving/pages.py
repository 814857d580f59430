"""What the page asks for: files that stay open for a while, frame by frame."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from itertools import count
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath
from fastapi.responses import FileResponse, Response, StreamingResponse
from numpy.typing import NDArray

from edgefusion.inference.predictor import Predictor
from edgefusion.serving.answers import Layer, describe_clip, picture_of
from edgefusion.serving.api import ERRORS, PNG, SEG, UPLOAD, UPLOAD_ERRORS, ModelName, SpacingMm, open_clip
from edgefusion.serving.example import example_clip
from edgefusion.serving.intake import Upload, frames_of, receive
from edgefusion.serving.limits import Limits
from edgefusion.serving.problems import Problem
from edgefusion.serving.segmentation import segment
from edgefusion.serving.service import Service
from edgefusion.serving.sessions import Session

STATIC = Path(__file__).parent / "static"

_LINES = "application/x-ndjson"

SessionId = Annotated[str, InPath(min_length=24, max_length=24, pattern="^[A-Za-z0-9_-]+$")]
Index = Annotated[int, InPath(ge=0, le=100_000, description="Number of the frame, from 0")]


def routes(service: Service) -> APIRouter:
    """The routes of the page, over the parts of a server."""
    router = APIRouter(responses=ERRORS)

    @router.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    @router.post("/v1/sessions", status_code=201, openapi_extra=UPLOAD, responses=UPLOAD_ERRORS)
    async def open_file(request: Request, spacing_mm: SpacingMm = None) -> dict[str, Any]:
        """Open a file for a while; its frames can then be asked for one by one."""
        async with service.engine.place():
            upload = await receive(request, service.folder, service.limits)
            try:
                session = await service.engine.run(_open, service, upload, spacing_mm)
            except BaseException:
                service.engine.later(upload.delete)
                raise
            service.sessions.add(session)
            return _about(session, service.limits)

    @router.post("/v1/sessions/example", status_code=201)
    async def open_example() -> dict[str, Any]:
        """Open the built-in example, a simulated neck."""
        async with service.engine.place():
            session = await service.engine.run(_open_example, service)
            service.sessions.add(session)
            return _about(session, service.limits)

    @router.delete("/v1/sessions/{session_id}", status_code=204)
    async def close_file(session_id: SessionId) -> None:
        """Close a file and delete it here."""
        service.sessions.get(session_id)
        service.sessions.remove(session_id)

    @router.get("/v1/sessions/{session_id}/results", responses={200: {"content": {_LINES: {}}}})
    async def results(
        session_id: SessionId, model: ModelName = None, start: Annotated[int, Query(ge=0, le=100_000)] = 0
    ) -> StreamingResponse:
        """What a network says about each frame, a line of JSON each, as it is computed.

        The first line has what holds for all frames, the last one ``end``: how many frames there are, and a note.
        """
        name, predictor = service.models.get(model)
        session = service.sessions.get(session_id)

        return StreamingResponse(_lines(service, session, name, predictor, start), media_type=_LINES)

    @router.get(
        "/v1/sessions/{session_id}/frames/{index}/{layer}",
        responses={200: {"content": {PNG: {}}}},
    )
    async def frame(
        session_id: SessionId,
        index: Index,
        layer: Layer,
        model: ModelName = None,
        label: Annotated[int, Query(ge=0, le=255, description="Number of the label, from 0")] = 0,
    ) -> Response:
        """A picture of one frame: as it is, a channel of it, or what a network says."""
        _, predictor = service.models.get(model)
        session = service.sessions.get(session_id)

        def draw() -> bytes:
            return picture_of(layer, session.frame(index), session.clip, predictor, label)

        async with service.engine.place():
            return Response(await service.engine.run(draw), media_type=PNG)

    @router.get(
        "/v1/sessions/{session_id}/segmentation",
        responses={200: {"content": {SEG: {}}}, 406: UPLOAD_ERRORS[406], 413: UPLOAD_ERRORS[413]},
    )
    async def segmentation(session_id: SessionId, model: ModelName = None) -> Response:
        """All frames of a DICOM file as a DICOM Segmentation."""
        name, predictor = service.models.get(model)
        session = service.sessions.get(session_id)
        if session.kind != "dicom":
            raise Problem(HTTPStatus.NOT_ACCEPTABLE, "A DICOM Segmentation refers to a DICOM file, and this is none.")
        indices = count()

        def next_frame() -> NDArray[Any] | None:
            index = next(indices)
            return session.frame(index) if session.reaches(index) else None

        async with service.engine.place():
            body = await segment(service, next_frame, session.clip, name, predictor)
        return Response(body, media_type=SEG)

    return router


def _open(service: Service, upload: Upload, spacing_mm: float | None) -> Session:
    clip = open_clip(service, upload, spacing_mm)
    return service.open_session(clip, frames_of(clip, service.limits), upload)


async def _lines(
    service: Service, session: Session, model: str, predictor: Predictor, start: int
) -> AsyncIterator[str]:
    yield _line(describe_clip(session.clip, model, predictor.bundle))
    index = start
    try:
        async with service.engine.place():
            while (result := await service.engine.run(session.result, index, model, predictor)) is not None:
                service.sessions.get(session.id)
                service.metrics.frames.labels(model).inc()
                yield result + "\n"
                index += 1
    except Problem as problem:
        yield _line({"error": str(problem)})
        return
    yield _line({"end": {"count": session.count, "note": session.note}})


def _open_example(service: Service) -> Session:
    clip = example_clip()
    return service.open_session(clip, clip.read(), None)


def _about(session: Session, limits: Limits) -> dict[str, Any]:
    height, width = session.frame(0).shape[:2]
    clip = session.clip
    return {
        "id": session.id,
        "kind": session.kind,
        "count": None if clip.count is None else min(clip.count, limits.frames),
        "rate": clip.rate,
        "size": {"height": height, "width": width},
        "spacing_mm": None if clip.spacing is None else list(clip.spacing),
    }


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"
