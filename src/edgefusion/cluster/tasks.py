"""Running tasks on a cluster: as many at once as it has room for, and the first error ends them all."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from edgefusion.errors import EdgeFusionError, UsageError

_LIVES = 5
"""How often a task begins anew after its worker or machine was lost."""


class Tasks:
    """Calls of one function on the machines of the cluster that this process is connected to.

    Args:
        function: What workers call; importable on every machine.
        cpus: Cores that a call takes; on a cluster with GPUs it takes one of these as well.

    Raises:
        UsageError: If no machine has so many cores.
    """

    def __init__(self, function: Callable[..., Any], cpus: int) -> None:
        import ray

        largest = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
        if not 1 <= cpus <= largest:
            raise UsageError(
                f"A task cannot have {cpus} cores: the largest machine of the cluster has {largest:.0f}.",
                "Change --cpus-per-task.",
            )
        self.cpus = cpus
        """Cores of a call."""
        self.room = int(sum(node["Resources"].get("CPU", 0) // cpus for node in ray.nodes() if node["Alive"]))
        """How many calls run at once."""
        gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
        self._call = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=_LIVES)(function)
        self._pending: dict[Any, Any] = {}

    def start(self, key: Any, *arguments: Any) -> None:
        """Put one call into the queue; ``key`` names it."""
        self._pending[self._call.remote(*arguments)] = key

    def finished(self) -> Iterator[tuple[Any, Any]]:
        """Yield the key and the result of every call in the order in which they end; more may be started meanwhile.

        Raises:
            EdgeFusionError: The first that a call raised, or what became of its worker. All others are then ended.
        """
        import ray

        try:
            while self._pending:
                (done,), _ = ray.wait(list(self._pending), num_returns=1)
                yield self._pending.pop(done), _result(done)
        finally:
            for call in self._pending:
                with suppress(Exception):
                    ray.cancel(call, force=True)


class InTurn:
    """``Tasks`` without a cluster: calls run in this process, one after the other, while ``finished`` is asked."""

    room = 1

    def __init__(self, function: Callable[..., Any], cpus: int) -> None:
        self.cpus = cpus
        self._call = function
        self._pending: deque[tuple[Any, tuple[Any, ...]]] = deque()

    def start(self, key: Any, *arguments: Any) -> None:
        """Put one call into the queue; ``key`` names it."""
        self._pending.append((key, arguments))

    def finished(self) -> Iterator[tuple[Any, Any]]:
        """Yield the key and the result of every call in the order of the queue; more may be started meanwhile."""
        while self._pending:
            key, arguments = self._pending.popleft()
            yield key, self._call(*arguments)


def run_one(
    function: Callable[..., Any], cpus: int, arguments: Sequence[Any], where: type[Tasks] | type[InTurn] = Tasks
) -> Any:
    """The result of a single call."""
    tasks = where(function, cpus)
    tasks.start(None, *arguments)
    ((_, result),) = tasks.finished()
    return result


def _result(call: Any) -> Any:
    import ray

    try:
        return ray.get(call)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, EdgeFusionError):
            raise error.cause from None
        if isinstance(error.cause, ModuleNotFoundError):
            raise UsageError(
                f"A machine of the cluster lacks a package: {error.cause}.",
                "Install the same on every machine of the cluster.",
            ) from error
        raise
    except ray.exceptions.WorkerCrashedError as error:
        raise EdgeFusionError(
            f"A task was started {_LIVES + 1} times, and each time its worker was lost.",
            "Has every machine enough memory? What is finished is kept: start the same command again.",
        ) from error
