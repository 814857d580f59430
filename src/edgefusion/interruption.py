"""The end after Ctrl-C: soon, also where Python cannot be interrupted."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE_S = 1.5
"""Seconds after Ctrl-C that a program has to clean up."""


@contextmanager
def soon_over(say_so: Callable[[], None]) -> Iterator[None]:
    """End the whole program, with status 130, where the block does not end by itself soon after Ctrl-C.

    A ``KeyboardInterrupt`` waits until a call into a library returns, and the backward pass of a large batch can take
    many seconds. Nothing is lost by not waiting: what is on disk is whole at every moment, as after a kill. Where
    Ctrl-C has been given another meaning (the page's server, the recording of a live source), it keeps that.

    Args:
        say_so: Called before such an end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    done, (ours, theirs) = threading.Event(), socket.socketpair()

    def watch() -> None:
        while number := ours.recv(1):
            if number[0] != signal.SIGINT or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
                continue
            if not done.wait(PATIENCE_S):
                say_so()
                for child in multiprocessing.active_children():
                    child.kill()
                os._exit(130)

    theirs.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, daemon=True, name="edgefusion-interruption")
    watcher.start()
    try:
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(before)
        theirs.close()
        watcher.join()
        ours.close()
