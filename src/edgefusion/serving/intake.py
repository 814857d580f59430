"""Uploads: from a request to a clip, without trusting a name, a header or a size."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

import numpy as np
from fastapi import Request
from numpy.typing import NDArray
from PIL import Image
from starlette.datastructures import UploadFile
from starlette.types import Message, Receive

from edgefusion.data.clip import Clip
from edgefusion.data.sources import open_clip
from edgefusion.errors import DataError
from edgefusion.serving.limits import MIB, Limits
from edgefusion.serving.problems import Problem

Kind = Literal["picture", "video", "dicom"]

RAW_TYPES = ("application/octet-stream", "application/dicom", "image/", "video/")
"""Beginnings of the content types of a body that is the file itself."""

_CHUNK = 256 * 1024


@dataclass(frozen=True)
class Upload:
    """A file from a client, under a name of ours in a private folder."""

    path: Path
    kind: Kind

    def delete(self) -> None:
        """Delete the file. May be called again."""
        self.path.unlink(missing_ok=True)


async def receive(request: Request, folder: Path, limits: Limits) -> Upload:
    """Store the file that a request brings. Who calls this deletes the upload.

    Args:
        request: Its body is the file, or a form with one.
        folder: A private folder of ours.
        limits: Of the server.

    Raises:
        Problem: 408 too slow, 413 too large, 415 of no known kind, 422 empty or no file.
    """
    path = folder / secrets.token_hex(16)
    try:
        async with asyncio.timeout(limits.upload_seconds):
            await _store(request, path, limits)
        suffix, kind = _sniff(path)
        path = path.rename(path.with_suffix(suffix))
    except TimeoutError:
        path.unlink(missing_ok=True)
        raise Problem(
            HTTPStatus.REQUEST_TIMEOUT, f"The file did not arrive within {limits.upload_seconds:g} s."
        ) from None
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return Upload(path, kind)


def open_upload(upload: Upload, limits: Limits) -> Clip:
    """Open an upload after checking what its header claims. Decodes no picture.

    Raises:
        Problem: 413 too many pixels, 422 damaged or too small.
    """
    if upload.kind == "picture":
        _check_picture(upload.path, limits)
    elif upload.kind == "dicom":
        _check_dicom(upload.path, limits)
    with in_words(upload.path):
        return open_clip(upload.path)


def frames_of(clip: Clip, limits: Limits) -> Generator[NDArray[Any], None, None]:
    """The frames of an upload's clip, each checked.

    Raises:
        Problem: 413 too many pixels, 422 damaged or too small.
    """
    with in_words(clip.path):
        frames = clip.read()
    try:
        while True:
            with in_words(clip.path):
                frame = next(frames, None)
            if frame is None:
                return
            check_size(frame.shape[1], frame.shape[0], limits)
            yield np.ascontiguousarray(frame)
    finally:
        # Some readers hold a file open, some are plain iterators.
        close = getattr(frames, "close", None)
        if close is not None:
            close()


def check_size(width: int, height: int, limits: Limits) -> None:
    """Raise a ``Problem`` for a frame that is too large (413) or too small (422)."""
    if max(width, height) > limits.side or width * height > limits.pixels:
        raise Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"The file claims {width}×{height} pixels; allowed are {limits.side} a side and {limits.pixels} together. "
            "Crop it or scale it down.",
        )
    if min(width, height) < limits.least_side:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"A frame of {width}×{height} pixels is too small to hold an image."
        )


@contextmanager
def in_words(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises at a damaged upload into a 422 that does not tell where the file waits."""
    try:
        yield
    except Problem:
        raise
    except DataError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error).replace(str(path), "The file")) from error
    except Exception as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "The file is damaged. Copy or export it again.") from error


def _check_picture(path: Path, limits: Limits) -> None:
    with in_words(path):
        try:
            with Image.open(path, formats=("PNG", "TIFF", "JPEG")) as image:
                check_size(*image.size, limits)
        except Image.DecompressionBombError:
            raise Problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"The file claims far more than the {limits.pixels} pixels allowed. Crop it or scale it down.",
            ) from None


def _check_dicom(path: Path, limits: Limits) -> None:
    from edgefusion.data.dicom.file import read_header

    with in_words(path):
        header = read_header(path)
        check_size(int(header.get("Columns") or 0), int(header.get("Rows") or 0), limits)


async def _store(request: Request, path: Path, limits: Limits) -> None:
    kind = request.headers.get("content-type", RAW_TYPES[0]).partition(";")[0].strip().lower()
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > limits.upload_bytes:
        raise _too_large(limits)
    bounded = Request(request.scope, _bounded(request.receive, limits))
    if kind == "multipart/form-data":
        async with bounded.form(max_files=1, max_fields=4) as form:
            files = [value for value in form.values() if isinstance(value, UploadFile)]
            if not files:
                raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "The form has no file. Send it in a field called file.")
            with path.open("xb") as file:
                while chunk := await files[0].read(_CHUNK):
                    file.write(chunk)
    elif kind.startswith(RAW_TYPES):
        with path.open("xb") as file:
            async for chunk in bounded.stream():
                file.write(chunk)
    else:
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "Send the file as multipart/form-data, or as it is with its own content type: "
            "image/*, video/*, application/dicom or application/octet-stream.",
        )
    if not path.stat().st_size:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "The file is empty (0 bytes). Copy or export it again.")


def _bounded(receive: Receive, limits: Limits) -> Receive:
    """Messages of a body until there are too many bytes, whatever its header said."""
    left = limits.upload_bytes + 64 * 1024  # A form has a little of its own around the file.

    async def bounded() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise _too_large(limits)
        return message

    return bounded


def _too_large(limits: Limits) -> Problem:
    return Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The upload is larger than the {limits.upload_bytes / MIB:g} MiB allowed."
    )


def _sniff(path: Path) -> tuple[str, Kind]:
    """What a file is by its first bytes; its name and its content type are only claims."""
    with path.open("rb") as file:
        head = file.read(132)
    known: list[tuple[bool, str, Kind]] = [
        # First, since its 128 bytes before may look like another kind, and in some files are meant to.
        (head[128:132] == b"DICM", ".dcm", "dicom"),
        (head.startswith(b"\x89PNG\r\n\x1a\n"), ".png", "picture"),
        (head.startswith(b"\xff\xd8\xff"), ".jpg", "picture"),
        (head.startswith((b"II*\0", b"MM\0*")), ".tif", "picture"),
        (head[4:8] == b"ftyp", ".mp4", "video"),
        (head.startswith(b"RIFF") and head[8:12] == b"AVI ", ".avi", "video"),
        (head.startswith(b"\x1a\x45\xdf\xa3"), ".mkv", "video"),
        (head.startswith((b"GIF87a", b"GIF89a")), ".gif", "video"),
    ]
    for matches, suffix, kind in known:
        if matches:
            return suffix, kind
    raise Problem(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "This is no kind of file that is read here. Give a picture (PNG, TIFF, JPEG), a clip (MP4, AVI, Matroska, GIF) "
        "or a DICOM file.",
    )
