from __future__ import annotations

import threading
import time

from edgefusion.inference.ahead import ahead


def test_preparing_runs_ahead_but_not_away() -> None:
    started: list[int] = []
    lock = threading.Lock()

    def slow(item: int) -> int:
        with lock:
            started.append(item)
        time.sleep(0.001 * (item % 3))
        return item

    results = ahead(slow, range(50), 8, threads=4)
    for consumed, result in enumerate(results):
        assert result == consumed
        assert len(started) <= consumed + 8
    assert sorted(started) == list(range(50))
