"""The processes that train one network together: who is who, sums over all of them, and what one of them says.

Every process of a training is a rank. Ranks meet through the environment that torchrun sets (``launch`` sets the same).
A process on its own is the first rank of one, and all functions here then do next to nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from edgefusion.errors import EdgeFusionError

T = TypeVar("T")

PATIENCE = timedelta(minutes=10)
"""How long a rank waits for the others. One that has died is noticed at once; this is for a machine that vanished."""


class RankLostError(EdgeFusionError):
    """Another process of a joint training has ended, or its machine cannot be reached."""


def is_joint() -> bool:
    """Whether this process was started as one of several ranks, by torchrun or by ``launch``."""
    return distributed.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def joined() -> Iterator[None]:
    """Be one of the ranks while the block runs; without others, do nothing.

    Raises:
        RankLostError: If the connection to another rank is lost, or does not come about.
    """
    if not is_joint():
        yield
        return
    try:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
        yield
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error):
            raise
        raise RankLostError(
            "Another process of this training has ended, or cannot be reached.",
            "Every finished epoch is kept: start the training again, on all machines, with --resume.",
        ) from error
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def rank() -> int:
    """Number of this rank, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def ranks() -> int:
    """How many ranks there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def share(count: int) -> slice:
    """Which of ``count`` things are this rank's: a run of them, as long as the others' or one longer."""
    return slice(rank() * count // ranks(), (rank() + 1) * count // ranks())


def from_first(value: T) -> T:
    """The first rank's ``value``, on every rank."""
    if ranks() == 1:
        return value
    answer: list[Any] = [value]
    distributed.broadcast_object_list(answer, device=torch.device("cpu"))
    return answer[0]  # type: ignore[no-any-return]


def wait_for_all() -> None:
    """Return when every rank has come this far."""
    from_all_sum(torch.zeros(1))


def from_all_sum(value: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, differentiable.

    Every rank computes the loss of the whole batch from such sums, and calls ``backward`` on it. What then arrives at a
    rank's own weights is the gradient of that loss through its own frames, times the number of ranks; DDP's mean
    over the ranks makes the gradient of one process of it.
    """
    if ranks() == 1:
        return value
    total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:
        return _summed(value)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(value: Tensor) -> Tensor:
    total = value.detach().clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total)
    return total
