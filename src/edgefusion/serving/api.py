"""The API for programs: ``/v1/predict`` and what belongs to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from http import HTTPStatus
from time import monotonic
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse, Response

from edgefusion.data.clip import Clip
from edgefusion.data.region import find_region
from edgefusion.inference.predictor import Predictor
from edgefusion.serving.answers import describe_clip, picture_of, predict_frame
from edgefusion.serving.intake import RAW_TYPES, Upload, frames_of, open_upload, receive
from edgefusion.serving.problems import Problem
from edgefusion.serving.segmentation import segment
from edgefusion.serving.service import Service

JSON, PNG, SEG = "application/json", "image/png", "application/dicom"

ModelName = Annotated[str | None, Query(description="A name from /v1/models; by default its first", max_length=200)]
SpacingMm = Annotated[
    float | None,
    Query(gt=0, le=10, description="Side of a pixel in mm, for a file that does not say it; gives areas in mm²"),
]

_BINARY = {"schema": {"type": "string", "format": "binary"}}
UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            **{kind: _BINARY for kind in ("image/png", "image/jpeg", "image/tiff", "video/mp4", SEG, RAW_TYPES[0])},
        },
    }
}
"""OpenAPI's words for a request whose body is a file, or a form with one."""


def _error(description: str) -> dict[str, Any]:
    example = {"error": {"status": 422, "message": "The file is damaged. Copy or export it again."}}
    return {"description": description, "content": {JSON: {"schema": {"type": "object"}, "example": example}}}


ERRORS: dict[int | str, dict[str, Any]] = {
    401: _error("The token is missing or wrong"),
    403: _error("Asked by a page of another site"),
    404: _error("Nothing there, or not any more"),
    421: _error("Asked under a name that is not this machine's"),
    422: _error("The file or a parameter cannot be used"),
    503: _error("Too busy; Retry-After says when to come back"),
}
UPLOAD_ERRORS: dict[int | str, dict[str, Any]] = {
    **ERRORS,
    400: _error("The form is malformed"),
    406: _error("The file cannot be answered in the form asked for"),
    408: _error("The upload did not arrive in time"),
    413: _error("Too many bytes, pixels or frames"),
    415: _error("No kind of file that is read here"),
}


def routes(service: Service) -> APIRouter:
    """The routes for programs, over the parts of a server."""
    router = APIRouter(responses=ERRORS)

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the server runs."""
        return {"status": "ok"}

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The networks on offer, the default first."""
        return {"models": service.models.describe()}

    @router.post(
        "/v1/predict",
        openapi_extra=UPLOAD,
        responses={**UPLOAD_ERRORS, 200: {"content": {JSON: {}, PNG: {}, SEG: {}}}},
    )
    async def predict(request: Request, model: ModelName = None, spacing_mm: SpacingMm = None) -> Response:
        """Find the labels of a network in a picture, a clip or a DICOM file.

        The header Accept chooses the answer: JSON, for a single frame a label mask as PNG, for a DICOM file a DICOM
        Segmentation.
        """
        name, predictor = service.models.get(model)
        wanted = _wanted(request.headers.get("accept", JSON))
        async with service.engine.place(), _uploaded(request, service) as upload:
            clip = await service.engine.run(open_clip, service, upload, spacing_mm)
            _check_count(clip.count or 0, service)
            _check_wanted(wanted, upload, clip)
            if wanted == PNG:
                return Response(await service.engine.run(_only_mask, service, clip, predictor), media_type=PNG)
            if wanted == SEG:
                frames = frames_of(clip, service.limits)
                body = await segment(service, lambda: next(frames, None), clip, name, predictor)
                return Response(body, media_type=SEG)
            answer = describe_clip(clip, name, predictor.bundle) | {"frames": []}
            async for frame in _predicted(service, clip, name, predictor):
                answer["frames"].append(frame)
            # As text at once: FastAPI's own encoder walks through every point of every contour.
            return Response(json.dumps(answer, ensure_ascii=False, allow_nan=False), media_type=JSON)

    return router


def open_clip(service: Service, upload: Upload, spacing_mm: float | None) -> Clip:
    """Open an upload; what the file itself says of its spacing and its region goes before all else."""
    clip = open_upload(upload, service.limits)
    spacing = None if spacing_mm is None else (spacing_mm, spacing_mm)
    region = clip.region
    if region is None and upload.kind == "video":
        # A scanner's recorded screen, as often as not: the same is done for files by `edgefusion predict`.
        with closing(frames_of(clip, service.limits)) as frames:
            region = find_region(frames)
    return replace(clip, spacing=clip.spacing or spacing, region=region)


@asynccontextmanager
async def _uploaded(request: Request, service: Service) -> AsyncIterator[Upload]:
    upload = await receive(request, service.folder, service.limits)
    try:
        yield upload
    finally:
        # After the piece that may still read it.
        service.engine.later(upload.delete)


async def _predicted(service: Service, clip: Clip, model: str, predictor: Predictor) -> AsyncIterator[dict[str, Any]]:
    frames = frames_of(clip, service.limits)
    ends = monotonic() + service.limits.seconds
    index = 0

    def piece() -> dict[str, Any] | None:
        image = next(frames, None)
        if image is None:
            return None
        _check_count(index + 1, service)
        return predict_frame(index, image, clip, predictor)

    try:
        while (frame := await service.engine.run(piece)) is not None:
            service.metrics.frames.labels(model).inc()
            yield frame
            index += 1
            if monotonic() > ends:
                raise Problem(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    f"{index} frames took longer than the {service.limits.seconds:g} s allowed. Send a shorter clip.",
                    {"Retry-After": "60"},
                )
        if not index:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "The file holds no frame.")
    finally:
        service.engine.later(frames.close)


def _check_count(count: int, service: Service) -> None:
    if count > service.limits.frames:
        raise Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"The clip has {count} frames or more, and {service.limits.frames} are allowed. Cut it.",
        )


def _only_mask(service: Service, clip: Clip, predictor: Predictor) -> bytes:
    frames = frames_of(clip, service.limits)
    image = next(frames, None)
    if image is None:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "The file holds no frame.")
    if clip.count != 1 and next(frames, None) is not None:
        raise _no_picture()
    return picture_of("mask", image, clip, predictor)


def _wanted(accept: str) -> str:
    """The first kind of answer in an Accept header that there is."""
    for part in accept.split(","):
        kind = part.partition(";")[0].strip().lower()
        if kind in (JSON, PNG, SEG):
            return kind
        if kind in ("*/*", "application/*", ""):
            return JSON
        if kind == "image/*":
            return PNG
    raise Problem(HTTPStatus.NOT_ACCEPTABLE, f"The answer can be {JSON}, {PNG} or {SEG}.")


def _check_wanted(wanted: str, upload: Upload, clip: Clip) -> None:
    if wanted == PNG and (clip.count or 1) > 1:
        raise _no_picture()
    if wanted == SEG and upload.kind != "dicom":
        raise Problem(
            HTTPStatus.NOT_ACCEPTABLE, "A DICOM Segmentation refers to a DICOM file; send one, or ask for JSON."
        )


def _no_picture() -> Problem:
    return Problem(HTTPStatus.NOT_ACCEPTABLE, "A clip has many masks; a PNG holds one. Ask for application/json.")
