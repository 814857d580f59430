"""Threads that give up what they have not begun when the run is interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def thread_pool(workers: int | None) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads for the block; take the results inside it, what was not begun at its end is not done.

    The executor's own block would first do everything that was ever handed to it, also after Ctrl-C.
    """
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
