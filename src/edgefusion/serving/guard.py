"""Who may ask: the right host name, the right origin, and where one is set the right token."""

from __future__ import annotations

import hmac
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgefusion.serving.problems import Problem

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names under which a browser on the same machine asks."""

OPEN_PATHS = ("/", "/healthz")
"""Paths that need no token, besides those under ``/static/``: they hold nothing of anybody."""

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), display-capture=(self), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


class Guard:
    """Turns away requests before anything else sees them, and sets the security headers of every answer.

    A page from elsewhere may point its own name at 127.0.0.1 (DNS rebinding) and so reach a server that only listens
    there; its Host header still tells its name. Where a token is set, such a page does not have it.

    Args:
        app: What is guarded.
        local: Whether only ``LOCAL_NAMES`` are answered.
        token: What a request must bring as ``Authorization: Bearer``; None asks for nothing. A WebSocket brings it in
            its first message, see ``live``, since a browser cannot set its headers.
    """

    def __init__(self, app: ASGIApp, local: bool, token: str | None) -> None:
        self._app = app
        self._local = local
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or refuse."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        problem = self._refusal(scope)
        if problem is None:
            await self._app(scope, receive, secured)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await problem.response()(scope, receive, secured)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if self._local and _name(host) not in LOCAL_NAMES:
            return Problem(
                HTTPStatus.MISDIRECTED_REQUEST, "This server answers to localhost and 127.0.0.1 only, not to that name."
            )
        origin = headers.get("origin")
        if origin is not None and origin.lower().removeprefix("https://").removeprefix("http://") != host:
            return Problem(HTTPStatus.FORBIDDEN, "Pages of other sites may not ask this server.")
        open_ = scope["path"] in OPEN_PATHS or scope["path"].startswith("/static/")
        if scope["type"] == "http" and not open_ and not matches(self._token, _bearer(headers)):
            return Problem(
                HTTPStatus.UNAUTHORIZED,
                "This server asks for its token: Authorization: Bearer TOKEN.",
                {"WWW-Authenticate": "Bearer"},
            )
        return None


def matches(token: str | None, given: str) -> bool:
    """Whether a client has the token, in a time that does not tell how much of it was right."""
    return token is None or hmac.compare_digest(token.encode(), given.encode())


def _bearer(headers: Headers) -> str:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
