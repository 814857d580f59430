"""Refusals, in words: every one has a status code and says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from edgefusion.errors import DataError, EdgeFusionError, UsageError
from edgefusion.progress import say


class Problem(Exception):  # noqa: N818 - it is an answer, and not always an error
    """Ends a request with a status code and a sentence for a person.

    Args:
        status: HTTP status code.
        message: What is wrong, and what to do.
        headers: Further headers of the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})

    def response(self) -> JSONResponse:
        """The answer: ``{"error": {"status": 413, "message": "..."}}``."""
        return JSONResponse({"error": {"status": self.status, "message": str(self)}}, self.status, self.headers)


def answer_in_words(app: FastAPI) -> None:
    """Let every failure of an app be answered in the same form."""

    @app.exception_handler(Problem)
    async def problem(_: Request, error: Problem) -> JSONResponse:
        return error.response()

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        words = {
            HTTPStatus.NOT_FOUND: "There is nothing at this address.",
            HTTPStatus.METHOD_NOT_ALLOWED: "This address does not take that method.",
        }.get(HTTPStatus(error.status_code), str(error.detail))
        return Problem(error.status_code, words, error.headers).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(map(_words, error.errors()))).response()

    @app.exception_handler(EdgeFusionError)
    async def expected(_: Request, error: EdgeFusionError) -> JSONResponse:
        theirs = isinstance(error, UsageError | DataError)
        status = HTTPStatus.UNPROCESSABLE_ENTITY if theirs else HTTPStatus.INTERNAL_SERVER_ERROR
        return Problem(status, str(error)).response()

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        # The text of an unforeseen error may hold anything, a patient's name included.
        say(f"{request.method} {request.scope['path']!r} failed: {type(error).__name__}")
        return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The server failed at this; that is its fault.").response()


def _words(error: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"][1:])
    return f"{where}: {error['msg']}"
