"""Doing work in threads a little ahead of where its results are needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from edgefusion.threads import thread_pool

T = TypeVar("T")
R = TypeVar("R")


def ahead(function: Callable[[T], R], items: Iterable[T], depth: int, threads: int | None) -> Iterator[R]:
    """Yield ``function(item)`` in order; ``threads`` work up to ``depth`` items ahead of what is consumed."""
    with thread_pool(threads) as pool:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
