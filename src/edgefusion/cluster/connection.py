"""Joining a Ray cluster, or one line that says why that cannot be. Ray is imported here and in no other room."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from edgefusion.errors import UsageError

_PATIENCE_S = 10.0

# What every HTTP/2 connection, and so every call within a cluster, begins with: the preface and an empty SETTINGS.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = 4


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Be a driver of a Ray cluster while the block runs; what workers say appears on this process's stderr.

    A process that is connected already stays so, whatever ``address`` says.

    Args:
        address: ``auto`` (the cluster that this machine belongs to), ``HOST:PORT`` of the cluster's head, or ``local``
            (a cluster of this machine alone, which ends with the block).

    Raises:
        UsageError: If Ray is not installed, no cluster answers within seconds, or it runs another Ray or Python.
    """
    # Ray reads these when it is imported. Lines that differ in their numbers alone are progress, not repetition.
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise UsageError("--ray needs Ray, which is not installed.", 'pip install "edgefusion[cluster]"') from None
    if ray.is_initialized():
        yield
        return
    _check(address)
    try:
        if address == "local":
            ray.init(address="local", include_dashboard=False, logging_level="WARNING")
        else:
            ray.init(address=address, logging_level="WARNING")
    except (ConnectionError, RuntimeError, ValueError) as error:
        # Among others: no cluster on this machine; the cluster's head runs another version of Ray or of Python.
        reason = " ".join(str(error).split())
        raise UsageError(
            f"The Ray cluster at '{address}' cannot be joined: {reason}",
            "This machine has to belong to it (ray start --address HOST:PORT), with the head's versions, and with "
            "RAY_AUTH_MODE=token where the cluster asks for a token, as Ray's do by default.",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check(address: str) -> None:
    """Refuse an address at which nothing answers; Ray itself would try for minutes and then end the process."""
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        raise UsageError(
            f"'{address}' is not the address of a Ray cluster.",
            "Give auto, local or HOST:PORT, and run this on a machine of the cluster (ray:// is not supported).",
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE_S) as probe:
            probe.settimeout(_PATIENCE_S)
            probe.sendall(_GREETING)
            answer = probe.recv(9)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"No Ray cluster answers at {address} ({error}).", "Is it running? ray start --head prints its address."
        ) from None
    if len(answer) < 9 or answer[3] != _SETTINGS:
        raise UsageError(f"What answers at {address} is not a Ray cluster.", "ray start --head prints its address.")
