"""The whole way from a raw frame to its mask as torch modules that can be exported; the Predictor's twin in one graph.

Three parts, which ``onnx.export_onnx`` joins: before the network (frame to stack), the network (stack to maps), and
after it (maps to what a caller wants at the frame's size).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgefusion.bundle import Bundle
from edgefusion.channels.recipe import diffusion_time
from edgefusion.channels.torch_diffusion import despeckle_tensor
from edgefusion.channels.torch_edges import edge_map_tensor
from edgefusion.config import ChannelRecipe
from edgefusion.errors import UsageError
from edgefusion.inference.temperature import factors, scale_tensor
from edgefusion.models.blocks import SegmentationOutput, standardise

Outputs = tuple[Tensor, Tensor, Tensor, Tensor]

CHANNELS = ("raw", "srad", "dpad", "edges")
"""The channels that exist as tensor operations."""


class BeforeNetwork(nn.Module):
    """Grey frame H×W uint8 -> stack 1×C×height×width float32 in [0, 1], as ``channels.recipe.build_stack``.

    Args:
        recipe: Channels and size.

    Raises:
        UsageError: If a channel has no tensor form.
    """

    def __init__(self, recipe: ChannelRecipe) -> None:
        super().__init__()
        for name in recipe.channels:
            if name not in CHANNELS:
                raise UsageError(
                    f"The channel '{name}' has no form inside an ONNX graph.", f"These have: {', '.join(CHANNELS)}."
                )
        self.recipe = recipe

    def forward(self, frame: Tensor) -> Tensor:
        """H×W uint8 -> 1×C×height×width."""
        size = (self.recipe.height, self.recipe.width)
        plane = frame.to(torch.float32)[None, None] / 255
        if self.recipe.resolution == "network":
            plane = area_resize(plane, size)
        planes = {"raw": plane}
        if set(self.recipe.channels) != {"raw"}:
            time = diffusion_time(self.recipe, plane.shape[3])
            if "srad" in self.recipe.channels:
                planes["srad"] = despeckle_tensor(plane, "srad", time=time)
            if {"dpad", "edges"} & set(self.recipe.channels):
                planes["dpad"] = despeckle_tensor(plane, "dpad", time=time)
            if "edges" in self.recipe.channels:
                planes["edges"] = edge_map_tensor(plane, planes["dpad"])
        stack = torch.cat([planes[name] for name in self.recipe.channels], 1)
        return stack if self.recipe.resolution == "network" else area_resize(stack, size)


class Network(nn.Module):
    """Stack N×C×height×width in [0, 1] -> what ``probabilities`` gives, without presence where there is no head."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, stack: Tensor) -> tuple[Tensor, ...]:
        """What the network says, as probabilities."""
        return tuple(maps for maps in probabilities(self.model(standardise(stack))) if maps is not None)


class AfterNetwork(nn.Module):
    """Maps of one frame at the network's size, and a frame of the size wanted -> what a caller wants at that size.

    Args:
        bundle: Whose thresholds decide.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.thresholds = bundle.thresholds
        self.factors = factors(bundle.temperatures, bundle.labels)

    def forward(self, frame: Tensor, probability: Tensor, edges: Tensor, head: Tensor | None = None) -> Outputs:
        """H×W, 1×L×h×w twice, 1×L or None -> mask H×W uint8, probability and edges L×H×W, presence L."""
        probability, edges = (
            F.interpolate(maps, size=frame.shape, mode="bilinear", align_corners=False)[0]
            for maps in (probability, edges)
        )
        if self.factors is not None:
            probability = scale_tensor(probability, torch.tensor(self.factors)[:, None, None])
        presence = probability.amax((1, 2)) if head is None else head[0]
        there = (probability >= self.thresholds["mask"]) & (presence >= self.thresholds["presence"])[:, None, None]
        winner = torch.where(there, probability, -1.0).argmax(0) + 1
        mask = torch.where(there.any(0), winner, 0).to(torch.uint8)
        return mask, probability, edges, presence


def probabilities(output: SegmentationOutput) -> tuple[Tensor, Tensor, Tensor | None]:
    """What a network says, as probabilities.

    Args:
        output: Logits of N frames and L labels.

    Returns:
        Probability and edge probability, N×L×height×width, and what the presence head says, N×L or None, in [0, 1].
        Networks without a boundary head show how steeply the probability changes.
    """
    probability = output.mask.sigmoid()
    edges = _steepness(probability) if output.boundary is None else output.boundary.sigmoid()
    return probability, edges, None if output.presence is None else output.presence.sigmoid()


def _steepness(probability: Tensor) -> Tensor:
    """Gradient magnitude by central differences, doubled, so that a step from 0 to 1 along an axis gives 1."""
    rows, columns = torch.gradient(probability, dim=(2, 3))
    return (2 * (rows.square() + columns.square()).sqrt()).clamp(max=1)  # hypot has no form in ONNX


def area_resize(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize as ``cv2.resize(..., interpolation=cv2.INTER_AREA)`` does, by two products of matrices.

    Args:
        planes: N×C×H×W.
        size: New height and width.

    Returns:
        N×C×height×width: every pixel is the mean over the area that it covers. Where one side grows, both are
        interpolated, by OpenCV's rule for that case.
    """
    sides = [torch.scalar_tensor(side, dtype=torch.int64) for side in planes.shape[2:]]
    shrinks = (sides[0] >= size[0]) & (sides[1] >= size[1])
    down, across = (
        torch.where(shrinks, _area(side, source, new), _linear(side, source, new))
        for side, source, new in zip(sides, planes.shape[2:], size, strict=True)
    )
    return down @ planes @ across.T


def _area(side: Tensor, source: int, new: int) -> Tensor:
    """new×source: the share of each old pixel in each new one."""
    edges = torch.arange(new + 1) * side / new
    pixels = torch.arange(source)
    shared = torch.minimum(edges[1:, None], pixels + 1.0) - torch.maximum(edges[:-1, None], pixels + 0.0)
    return shared.clamp(min=0) * (new / side)


def _linear(side: Tensor, source: int, new: int) -> Tensor:
    """new×source: weights of the two nearest old pixels."""
    indices = torch.arange(new)
    first = indices * side // new
    share = (indices + 1.0) - (first + 1) * (new / side)
    share = torch.where(share <= 0, 0.0, share - share.floor())[:, None]
    pixels, second = torch.arange(source), (first + 1).clamp(max=side - 1)
    return (1 - share) * (pixels == first[:, None]) + share * (pixels == second[:, None])
