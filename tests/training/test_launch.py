"""Processes of one training are started, watched and ended together. They are forked: importing torch takes seconds."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path

import pytest
import torch

from edgefusion.errors import DataError, EdgeFusionError, UsageError
from edgefusion.training import launch as launching
from edgefusion.training.launch import Meeting, launch
from edgefusion.training.ranks import from_all_sum, from_first, rank, ranks, share, wait_for_all

_ONE_MACHINE = Meeting(1)
_FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def _fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "_START_METHOD", "fork")


@contextmanager
def _all_gone() -> Iterator[Connection]:
    """Gives a pipe's end for processes to inherit; afterwards all of them must have ended."""
    ours, theirs = _FORK.Pipe(duplex=False)
    yield theirs
    theirs.close()
    assert wait([ours], 20), "a process is still there"


def _count(file: Path) -> None:
    assert from_first(rank()) == 0
    # Ctrl-C is for the parent to understand; and one machine keeps to itself.
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert ("GLOO_SOCKET_IFNAME" in os.environ) == (os.environ["LOCAL_WORLD_SIZE"] == "2")
    value = torch.tensor([1.0 + rank()], requires_grad=True)
    total = from_all_sum(value)
    (2 * total).backward()  # type: ignore[no-untyped-call]
    assert value.grad is not None
    file.with_suffix(f".{rank()}").write_text(f"{ranks()} {share(7)} {total.item()} {value.grad.item()}")


def test_ranks_know_each_other(tmp_path: Path) -> None:
    launch(partial(_count, tmp_path / "rank"), 2, _ONE_MACHINE)
    assert (tmp_path / "rank.0").read_text() == "2 slice(0, 3, None) 3.0 4.0"
    assert (tmp_path / "rank.1").read_text() == "2 slice(3, 7, None) 3.0 4.0"


def test_two_machines_meet_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(port))
    monkeypatch.setenv("NODE_RANK", "1")
    job = partial(_count, tmp_path / "rank")
    other = _FORK.Process(target=launch, args=(job, 1, Meeting.of(2)))
    other.start()
    monkeypatch.setenv("NODE_RANK", "0")
    launch(job, 1, Meeting.of(2))
    other.join()
    assert other.exitcode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"rank.0", "rank.1"}


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _refuse() -> None:
    raise DataError("The frame x is damaged.")


def _fail() -> None:
    raise ValueError("a mistake of the program")


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        (_die, EdgeFusionError, "Process 2 of 2 was killed .signal 9.*--resume"),
        (_refuse, DataError, "^The frame x is damaged.$"),
        (_fail, EdgeFusionError, "Process 2 of 2 failed, see above.*--resume"),
    ],
)
@pytest.mark.parametrize("meanwhile", [wait_for_all, threading.Event().wait], ids=["waits for it", "is stuck"])
def test_when_one_process_ends_early_all_do(
    what: Callable[[], None],
    kind: type[EdgeFusionError],
    message: str,
    meanwhile: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if meanwhile is not wait_for_all:
        monkeypatch.setattr(launching, "_GRACE_S", 0.2)

    def job() -> None:
        what() if rank() == 1 else meanwhile()

    with _all_gone(), pytest.raises(EdgeFusionError, match=message) as raised:
        launch(job, 2, _ONE_MACHINE)
    assert type(raised.value) is kind


def test_an_interrupt_ends_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(launching, "_watch", interrupted)
    with _all_gone(), pytest.raises(KeyboardInterrupt):
        launch(threading.Event().wait, 2, _ONE_MACHINE)


def test_when_the_parent_is_killed_its_processes_end() -> None:
    with _all_gone():
        ready, say_ready = _FORK.Pipe(duplex=False)

        def job() -> None:
            wait_for_all()
            say_ready.send(rank())
            threading.Event().wait()

        parent = _FORK.Process(target=launch, args=(job, 2, _ONE_MACHINE))
        parent.start()
        assert {ready.recv(), ready.recv()} == {0, 1}
        parent.kill()
        parent.join()


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"Port {port} of this machine is in use. Set MASTER_PORT"):
            launch(wait_for_all, 1, Meeting(2, 0, "127.0.0.1", port))


@pytest.mark.parametrize(
    ("node", "message"), [(None, "NODE_RANK"), ("two", "NODE_RANK"), ("2", "NODE_RANK is 2, of 2")]
)
def test_each_machine_must_be_told_its_number(node: str | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("NODE_RANK", node), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29500")):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        Meeting.of(2)
