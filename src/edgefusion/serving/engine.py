"""One frame at a time, and a queue with an end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from http import HTTPStatus
from time import perf_counter
from typing import TypeVar

from edgefusion.serving.problems import Problem

T = TypeVar("T")


class Engine:
    """Computes in one thread of its own, piece by piece, so that all requests take turns after each frame.

    Decoders and the network share this thread: what a piece touches, no other piece touches at the same time.

    Args:
        waiting: Requests that may be in the house besides the one that computes.
    """

    def __init__(self, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(1, "edgefusion-engine")
        self._waiting = waiting
        self._piece_s = 0.05
        self.guests = 0
        """Requests in the house now."""

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold one of the places in the house.

        Raises:
            Problem: 503 with Retry-After, where all are taken.
        """
        if self.guests > self._waiting:
            seconds = max(1, math.ceil(self.guests * self._piece_s))
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"The server is busy: {self.guests} requests are waiting. Try again in {seconds} s.",
                {"Retry-After": str(seconds)},
            )
        self.guests += 1
        try:
            yield
        finally:
            self.guests -= 1

    async def run(self, piece: Callable[..., T], *arguments: object) -> T:
        """Wait for the turn, compute a piece, and give its result or raise what it raised."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._timed, piece, *arguments)

    def later(self, piece: Callable[[], object]) -> None:
        """Compute a piece when its turn comes, without waiting for it."""
        self._pool.submit(piece)

    def close(self) -> None:
        """Finish the piece that computes, drop the others."""
        self._pool.shutdown(cancel_futures=True)

    def _timed(self, piece: Callable[..., T], *arguments: object) -> T:
        started = perf_counter()
        try:
            return piece(*arguments)
        finally:
            self._piece_s = 0.8 * self._piece_s + 0.2 * (perf_counter() - started)
