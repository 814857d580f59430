"""The web application, and the server that runs it."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import uvicorn
from fastapi import FastAPI
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

import edgefusion
from edgefusion.errors import UsageError
from edgefusion.progress import say
from edgefusion.serving import api, live, pages
from edgefusion.serving.guard import Guard
from edgefusion.serving.limits import Limits
from edgefusion.serving.metrics import Counted
from edgefusion.serving.models import Models
from edgefusion.serving.problems import answer_in_words
from edgefusion.serving.service import Service

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
"""Hosts that only this machine reaches."""

LEAST_TOKEN = 16
"""Characters that a token has at least: shorter ones can be guessed."""

_SWEEP_S = 30.0


def make_app(models: Models, limits: Limits | None = None, *, local: bool = True, token: str | None = None) -> ASGIApp:
    """The page and the API as an ASGI application.

    Args:
        models: The networks on offer.
        limits: What it takes on; None takes the defaults.
        local: Answer only to this machine's own names, see ``guard.Guard``.
        token: What clients must bring; None for nothing.
    """
    service = Service(models, limits or Limits(), token)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.engine.later(service.warm)
        sweeping = asyncio.create_task(_sweep(service))
        yield
        sweeping.cancel()
        service.close()

    app = FastAPI(
        title="EdgeFusion",
        version=edgefusion.__version__,
        description="Finds nerves in ultrasound images. For research, not for diagnosis.",
        lifespan=lifespan,
        # Their pages load scripts from elsewhere; /openapi.json is there.
        docs_url=None,
        redoc_url=None,
    )
    answer_in_words(app)
    for part in (api, pages, live):
        app.include_router(part.routes(service))
    app.mount("/static", StaticFiles(directory=pages.STATIC), name="static")
    return Counted(Guard(app, local, token), service.metrics)


def serve(models: Sequence[str], host: str = "127.0.0.1", port: int = 8000, token: str | None = None) -> None:
    """Run the server until it is interrupted.

    Args:
        models: Bundles, folders or names of shipped ones; those that ship are offered besides.
        host: Where to listen; anything but this machine's own addresses needs a token.
        port: Where to listen; 0 takes a free one.
        token: What clients must bring.

    Raises:
        UsageError: If a token is needed and missing, or is too short, or the address cannot be used.
        BundleError: If a bundle is damaged.
    """
    local = host in LOCAL_HOSTS
    if token is None and not local:
        example = secrets.token_hex(16)
        raise UsageError(f"Others can reach {host}, so a token is needed.", f"Add --token {example}, or one of yours.")
    if token is not None and not (len(token) >= LEAST_TOKEN and token.isascii() and token.isprintable()):
        raise UsageError(f"A token has at least {LEAST_TOKEN} printable ASCII characters.")
    app = make_app(Models.load(models), local=local, token=token)
    listener = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    say(f"EdgeFusion at http://{shown}:{listener.getsockname()[1]}  (research use, not for diagnosis; Ctrl+C ends it)")
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws_max_size=Limits.live_bytes,
        limit_concurrency=256,
        timeout_graceful_shutdown=3,
    )
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


async def _sweep(service: Service) -> None:
    """Close files that nobody looks at any more, also when nobody asks for anything."""
    while True:
        await asyncio.sleep(_SWEEP_S)
        service.sessions.tidy()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{host}:{port} cannot be used: {reason}.", "Choose another --port.") from None
    return listener
