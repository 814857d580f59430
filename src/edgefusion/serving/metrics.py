"""Counters for Prometheus."""

from __future__ import annotations

from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgefusion.serving.engine import Engine
from edgefusion.serving.sessions import Sessions


class Metrics:
    """The counters of one server.

    Args:
        engine: Whose queue is shown.
        sessions: Whose number and size are shown.
    """

    def __init__(self, engine: Engine, sessions: Sessions) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "edgefusion_requests", "Answers by route and status.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "edgefusion_request_seconds", "From request to the answer's end.", ["route"], registry=self.registry
        )
        self.frames = Counter("edgefusion_frames", "Frames predicted.", ["model"], registry=self.registry)
        self.dropped = Counter(
            "edgefusion_live_dropped", "Frames of live views that gave way to newer ones.", registry=self.registry
        )
        waiting = Gauge("edgefusion_requests_in_house", "Requests that wait or compute.", registry=self.registry)
        waiting.set_function(lambda: engine.guests)
        number = Gauge("edgefusion_sessions", "Files open on pages.", registry=self.registry)
        number.set_function(lambda: len(sessions))
        size = Gauge("edgefusion_session_bytes", "Bytes of the files open on pages.", registry=self.registry)
        size.set_function(lambda: sessions.bytes)

    def text(self) -> bytes:
        """All counters in Prometheus's text format."""
        return generate_latest(self.registry)


class Counted:
    """Counts the answers of an app by route, never by address: addresses hold ids."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and count at the end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        status = 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "DELETE") else "other"
            self._metrics.requests.labels(method, route, status).inc()
            self._metrics.seconds.labels(route).observe(perf_counter() - started)
