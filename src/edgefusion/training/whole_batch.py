"""What a network does over its whole batch, done over the batch that several ranks share: normalisation and chance.

With these, ranks that each see a share of a batch compute what one process computes that sees all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from edgefusion.training.ranks import from_all_sum, ranks, share


@contextmanager
def normalised_over_ranks(network: nn.Module) -> Iterator[None]:
    """Let the batch normalisations of ``network`` use the whole batch while the block runs.

    torch's own SyncBatchNorm does the same, but not on processors.
    """
    layers = [layer for layer in network.modules() if type(layer) is nn.BatchNorm2d] if ranks() > 1 else []
    for layer in layers:
        layer.__class__ = _SharedBatchNorm2d
    try:
        yield
    finally:
        for layer in layers:
            layer.__class__ = nn.BatchNorm2d


class _SharedBatchNorm2d(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        output, mean, variance, count = _Normalise.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        normalised: Tensor = output
        return normalised


class _Normalise(torch.autograd.Function):
    """Batch normalisation (Ioffe and Szegedy 2015) with means over the frames of all ranks, there and back."""

    @staticmethod
    def forward(
        context: Any, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # Under autocast x may be narrower than the weights.
        variance, mean = (value.double() for value in torch.var_mean(x.to(weight.dtype), (0, 2, 3), correction=0))
        pixels = float(x.numel() // x.shape[1])
        sums = torch.stack([torch.full_like(mean, pixels), pixels * mean, pixels * (variance + mean**2)])
        # In double precision nothing is lost when the squared mean is taken off again.
        count, total, squares = from_all_sum(sums)
        mean = total / count
        variance = squares / count - mean**2
        mean, variance, count = (value.to(weight.dtype) for value in (mean, variance, count))
        context.save_for_backward(x, weight, mean, torch.rsqrt(variance + epsilon), count)
        context.mark_non_differentiable(mean, variance, count)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, epsilon), mean, variance, count

    @staticmethod
    def backward(context: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, scale, count = context.saved_tensors

        def wide(values: Tensor) -> Tensor:
            return values[:, None, None]

        normal, slope = (x.to(weight.dtype) - wide(mean)) * wide(scale), gradient.to(weight.dtype)
        here = torch.stack([slope.sum((0, 2, 3)), (slope * normal).sum((0, 2, 3))])
        offset, tilt = from_all_sum(here) / count
        back = (slope - wide(offset) - normal * wide(tilt)) * wide(scale * weight)
        return back.to(x.dtype), here[1], here[0], None


class WholeBatchChance(TorchFunctionMode):
    """Draws for the whole batch what a network draws for its frames, and takes this rank's share of it.

    All ranks must have seeded torch alike. So drawn are dropout and ``torch.rand`` with a frame in each row; a network
    that asked for chance in another way would draw alike on every rank.

    Args:
        frames: Number of frames of the whole batch.
    """

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames, self.share = frames, share(frames)

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        arguments: tuple[Any, ...] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        """Called by torch in place of each of its functions."""
        options = options or {}
        if function is torch.rand:
            (size,) = arguments
            return torch.rand(self.frames, *size[1:], **options)[self.share]
        if function in (F.dropout, F.dropout2d):
            (x,) = arguments
            # Of a frame's features dropout2d drops or keeps each as a whole.
            drawn = (*x.shape[1:2], 1, 1) if function is F.dropout2d else x.shape[1:]
            ones = torch.ones(self.frames, *drawn, dtype=x.dtype, device=x.device)
            return x * function(ones, options["p"], options["training"])[self.share]
        return function(*arguments, **options)
