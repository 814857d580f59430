from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from edgefusion.threads import thread_pool


def test_what_was_not_begun_is_given_up_after_ctrl_c() -> None:
    over = threading.Event()
    waiting: list[Future[int]] = []

    def interrupted() -> None:
        with thread_pool(1) as pool:
            pool.submit(over.wait, 10)
            waiting.append(pool.submit(int))
            waiting[0].add_done_callback(lambda _: over.set())  # that is, when it is cancelled
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert waiting[0].cancelled()
