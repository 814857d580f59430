"""Start the processes of a joint training on this machine, watch over them, and end them all when one ends early."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from edgefusion.errors import EdgeFusionError, UsageError
from edgefusion.training.ranks import RankLostError, joined

_START_METHOD = "spawn"
_GRACE_S = 5.0
"""How long the other processes may take to end by themselves after one has failed, and to say why."""


@dataclass(frozen=True)
class Meeting:
    """Where the processes of all machines find each other."""

    nodes: int
    """How many machines."""
    node: int = 0
    """Number of this one, from 0."""
    address: str = "127.0.0.1"
    """Address of machine 0."""
    port: int = 0
    """Port there; 0 takes a free one, where there is only one machine."""

    @classmethod
    def of(cls, nodes: int) -> Meeting:
        """On one machine its loopback; on several what the environment says.

        Raises:
            UsageError: If the environment does not say it, or says nonsense.
        """
        if nodes == 1:
            return cls(1)
        try:
            place = cls(nodes, int(os.environ["NODE_RANK"]), os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        except (KeyError, ValueError):
            raise UsageError(
                "With --nodes, each machine must be told its number and where machine 0 is.",
                "Set NODE_RANK (0, 1, ...), MASTER_ADDR and MASTER_PORT, or start the training with torchrun.",
            ) from None
        if not 0 <= place.node < nodes:
            raise UsageError(f"NODE_RANK is {place.node}, of {nodes} machines.", f"Number them from 0 to {nodes - 1}.")
        return place


def launch(job: Callable[[], object], devices: int, meeting: Meeting) -> None:
    """Run ``job`` in ``devices`` processes of this machine, as ranks of one training.

    If one fails, the others end within seconds. Were this process killed, they would end as well.

    Args:
        job: What every rank does; a script that calls this needs ``if __name__ == "__main__":``, since the processes
            are started afresh and read it again.
        devices: Processes on this machine, and on each of the others.
        meeting: Where they meet those of the other machines.

    Raises:
        UsageError: If the port is in use.
        EdgeFusionError: What a process raised; or, in words, that one was killed.
    """
    store = _open_store(meeting) if meeting.node == 0 else None
    port = store.port if store else meeting.port
    context: Any = multiprocessing.get_context(_START_METHOD)
    processes, reports = [], []
    try:
        for local in range(devices):
            report, sender = context.Pipe(duplex=False)
            environment = {
                "RANK": meeting.node * devices + local,
                "LOCAL_RANK": local,
                "GROUP_RANK": meeting.node,
                "WORLD_SIZE": meeting.nodes * devices,
                "LOCAL_WORLD_SIZE": devices,
                "MASTER_ADDR": meeting.address,
                "MASTER_PORT": port,
                "TORCHELASTIC_RUN_ID": "edgefusion",
                "TORCHELASTIC_USE_AGENT_STORE": True,
            }
            if meeting.nodes == 1:
                # What the ranks say to each other stays on this machine.
                environment["GLOO_SOCKET_IFNAME"] = next(n for _, n in socket.if_nameindex() if n.startswith("lo"))
            named = {name: str(value) for name, value in environment.items()}
            process = context.Process(target=_be_rank, args=(job, named, sender), daemon=True)
            process.start()
            sender.close()
            processes.append(process)
            reports.append(report)
        _watch(processes)
        _explain(processes, [_read(report) for report in reports])
    finally:
        for process in processes:
            process.kill()
            process.join()
        del store  # closes its port, which the traceback of an error would keep open


def _open_store(meeting: Meeting) -> TCPStore:
    """Listen where the ranks meet: on the loopback for one machine, for several on all interfaces."""
    try:
        listening = socket.create_server((meeting.address if meeting.nodes == 1 else "", meeting.port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise UsageError(
            f"Port {meeting.port} of this machine is in use.", "Set MASTER_PORT to another, on every machine."
        ) from None
    port = listening.getsockname()[1]
    return TCPStore(meeting.address, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())


def _be_rank(job: Callable[[], object], environment: dict[str, str], report: Connection) -> None:
    os.environ.update(environment)
    # Ctrl-C in a terminal reaches every process; what it means is for the parent to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with joined():
            try:
                job()
            except EdgeFusionError as error:
                # Said before the connections to the other ranks close, and they complain.
                report.send(error)
                raise SystemExit(1) from None
    except RankLostError as error:
        report.send(error)
        raise SystemExit(1) from None


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _watch(processes: list[BaseProcess]) -> None:
    """Return when all processes have ended, or some time after the first has failed."""
    deadline: float | None = None
    while running := [process for process in processes if process.exitcode is None]:
        if deadline is None and any(process.exitcode for process in processes):
            deadline = time.monotonic() + _GRACE_S
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return
        wait([process.sentinel for process in running], left)


def _read(report: Connection) -> EdgeFusionError | None:
    try:
        return report.recv() if report.poll() else None
    except EOFError:
        return None


def _explain(processes: list[BaseProcess], errors: list[EdgeFusionError | None]) -> None:
    """Raise what went wrong first, if anything did: that others then lost a rank only follows from it."""
    again = "Every finished epoch is kept: start the training again with --resume."
    ended = [
        (f"Process {number} of {len(processes)}", process.exitcode or 0, error)
        for number, (process, error) in enumerate(zip(processes, errors, strict=True), start=1)
    ]
    for name, status, _ in ended:
        if status < 0:
            what = f"{name} was killed (signal {-status}; 9 may mean that memory ran out)."
            raise EdgeFusionError(what, again)
    for error in errors:
        if error and not isinstance(error, RankLostError):
            raise error
    for name, status, error in ended:
        if status and not error:
            raise EdgeFusionError(f"{name} failed, see above.", again)
    for error in errors:
        if error:
            raise error
