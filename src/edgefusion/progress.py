"""Progress on stderr: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_PLAIN_INTERVAL_S = 10.0


def say(message: str) -> None:
    """Print one line for the person who watches; results go to stdout, this goes to stderr."""
    print(message, file=sys.stderr, flush=True)


def track(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    """Yield ``items`` while showing how far along they are; ``total`` None is an unknown number."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track as rich_track

        yield from rich_track(items, description, total=total, console=Console(stderr=True), transient=True)
        return
    started = last = time.monotonic()
    for index, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= _PLAIN_INTERVAL_S:
            last = now
            if total is None:
                say(f"{description}: {index}")
                continue
            remaining = (now - started) / index * (total - index)
            # The first items also pay for compilation and caches: they foretell nothing.
            estimate = f", about {remaining:.0f} s left" if index >= 0.1 * total and index > 3 else ""
            say(f"{description}: {index} of {total}{estimate}")
