"""Threads: a frame cut into bands of rows, or a batch into frames."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

_LEAST_PIXELS = 1 << 16
"""Smaller bands cost more in handing over, some 50 µs each time, than they save."""


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="edgefusion-bands")


# A forked child has the pool but not its threads, and would wait for them for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def count_bands(rows: int, columns: int, threads: int | None) -> int:
    """Into how many bands of rows a frame is cut; ``threads`` None allows all cores."""
    return max(1, min(cores() if threads is None else threads, rows, rows * columns // _LEAST_PIXELS))


def run_bands(work: Callable[[int, int, int], None], rows: int, bands: int) -> None:
    """Call ``work(band, first_row, one_past_last_row)`` for every band, each in its own thread."""
    edges = [rows * band // bands for band in range(bands + 1)]
    others = [_pool().submit(work, band, edges[band], edges[band + 1]) for band in range(1, bands)]
    try:
        work(0, 0, edges[1])
    finally:
        for other in others:
            other.result()
