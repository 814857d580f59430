import threading

import pytest

from edgefusion.threads import thread_pool


def test_what_was_not_begun_is_given_up_after_ctrl_c():
    over = threading.Event()
    with pytest.raises(KeyboardInterrupt), thread_pool(1) as pool:
        pool.submit(over.wait, 10)
        waiting = pool.submit(int)
        waiting.add_done_callback(lambda _: over.set())  # that is, when it is cancelled
        raise KeyboardInterrupt
    assert waiting.cancelled()
