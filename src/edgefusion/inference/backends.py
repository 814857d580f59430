"""What runs a network: PyTorch, or ONNX Runtime. The same maps come from each, to the last few bits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from edgefusion.bundle import Bundle
from edgefusion.channels.bands import cores
from edgefusion.inference.graph import Network

BACKENDS = ("torch", "onnx")
"""Names of the backends."""

Arrays = Sequence[NDArray[np.float32]]
"""Probability and edge probability, N×L×height×width, and N×L from the presence head, where there is one."""


class Backend(Protocol):
    """Runs the network of a bundle."""

    name: str
    """One of ``BACKENDS``."""

    def __call__(self, stacks: NDArray[np.floating[Any]]) -> Arrays:
        """What the network says of N×C×height×width channels in [0, 1]."""
        ...


class TorchBackend:
    """PyTorch in float32.

    Args:
        bundle: Its network is set to evaluation mode and moved to ``device``.
        device: As PyTorch names it.
    """

    name = "torch"

    def __init__(self, bundle: Bundle, device: str = "cpu") -> None:
        self._device = torch.device(device)
        network = Network(bundle.model).eval()
        self._network = network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, stacks: NDArray[np.floating[Any]]) -> Arrays:
        """See ``Backend``."""
        x = torch.from_numpy(stacks).to(self._device, torch.float32).contiguous(memory_format=torch.channels_last)
        return [np.ascontiguousarray(maps.cpu().numpy()) for maps in self._network(x)]


class OnnxBackend:
    """ONNX Runtime in float32 on the CPU: the network's part of a bundle's ``model.onnx``.

    Args:
        path: The file.
        weights_sha256: Of the bundle that it is used for.
        threads: Threads for one pass; None takes all cores.

    Raises:
        BundleError: If it is not such a file, or was made from other weights.
    """

    name = "onnx"

    def __init__(self, path: Path, weights_sha256: str, threads: int | None = None) -> None:
        import onnxruntime

        from edgefusion.inference.onnx import STACK, network_graph

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or cores()
        graph = network_graph(path, weights_sha256).SerializeToString()
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._input = STACK

    def __call__(self, stacks: NDArray[np.floating[Any]]) -> Arrays:
        """See ``Backend``."""
        frames = [self._session.run(None, {self._input: stack[None]}) for stack in np.asarray(stacks, dtype=np.float32)]
        return [np.concatenate(maps) for maps in zip(*frames, strict=True)]
