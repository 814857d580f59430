"""Small files that ask for much are refused within seconds, with words, and before their size is believed."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

sys.path.append(str(Path(__file__).parents[2] / "fuzz"))

from bombs import BOMBS

LIMIT_S = 5
ROOM = 1 << 30


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits of memory need a system with fork")
@pytest.mark.parametrize("name", [name for name, bomb in BOMBS.items() if bomb.refused and not bomb.slow])
def test_it_is_refused(name: str, readers: dict[str, Any], folder_of: Callable[..., Path]) -> None:
    bomb = BOMBS[name]
    reader = readers[bomb.reader]
    content, folder = bomb.make(), folder_of(reader)
    message, seconds = _apart(lambda: reader.feed(folder, content))
    assert bomb.refused in message
    assert seconds < LIMIT_S


def _apart(call: Callable[[], str]) -> tuple[str, float]:
    """What a call in a forked process returns, and the time it took there; with little memory and time."""
    here, there = os.pipe()
    process = os.fork()
    if not process:
        # Whatever happens, this copy of pytest must not go on.
        try:
            mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (mapped + ROOM, mapped + ROOM))
            resource.setrlimit(resource.RLIMIT_CPU, (4 * LIMIT_S, 4 * LIMIT_S))
            signal.alarm(60)
            cv2.setNumThreads(0)  # its threads are not there any more
            started = time.process_time()
            message = call()
            os.write(there, f"{time.process_time() - started}\n{message[:1000]}".encode())
        finally:
            os._exit(0)
    os.close(there)
    with os.fdopen(here) as answer:
        text = answer.read()
    os.waitpid(process, 0)
    seconds, _, message = text.partition("\n")
    return message, float(seconds or "inf")
