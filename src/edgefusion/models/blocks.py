"""The parts that EdgeFusion-UNet is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PRIOR_LOGIT = -3.0
"""Added to every pixel's logit, in all networks alike. A nerve covers a few per cent of a frame; a network that
starts from one half everywhere spends its first thousand steps on unlearning it (Lin et al. 2017, section 4.1)."""


class SegmentationOutput(NamedTuple):
    """What every network of the zoo returns. All values are logits."""

    mask: Tensor
    """B×L×H×W, one map a label."""
    boundary: Tensor | None
    """B×L×H×W, the border band of each label, or None where the network has no boundary head."""
    presence: Tensor | None
    """B×L, whether the label is in the frame at all, or None where the network has no presence head."""


def standardise(x: Tensor) -> Tensor:
    """Bring every channel of every frame to zero mean and unit variance over its pixels.

    What a network sees, in training as in use, is always this.

    Args:
        x: B×C×H×W channels in [0, 1].

    Returns:
        B×C×H×W float32; a constant channel becomes zero.
    """
    centred = x - x.mean((2, 3), keepdim=True)
    return centred / (centred.square().mean((2, 3), keepdim=True).sqrt() + 1e-6)


Normalisation = Literal["batch", "instance", "mixed"]
"""Over what features are normalised: a batch in training and its running mean in use; each frame on its own; or every
other feature of the shallow layers on its own and all others over the batch (IBN-Net, Pan et al. 2018), since a
scanner's style is in the shallow layers, and what tells nerve from muscle is in all."""


class MixedNorm(nn.Module):
    """Every other feature is normalised over its frame, the others over the batch. B×features×h×w, features even."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.instance = nn.InstanceNorm2d(features // 2, affine=True)
        self.batch = nn.BatchNorm2d(features // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return torch.stack([self.instance(x[:, ::2]), self.batch(x[:, 1::2])], 2).flatten(1, 2)


_NORMS: dict[Normalisation, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "instance": lambda features: nn.InstanceNorm2d(features, affine=True),
    "mixed": MixedNorm,
}


class ConvBlock(nn.Sequential):
    """3×3 convolution, normalisation, leaky ReLU.

    The frames are standardised one by one before they come here, so a scanner's gain is gone already; batch
    normalisation then costs nothing in use, where it folds into the convolution. What else is new about another
    scanner's frames, only instance normalisation takes out (Ulyanov et al. 2016).
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int = 1, groups: int = 1, normalisation: Normalisation = "batch"
    ) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, groups=groups, bias=False),
            _NORMS[normalisation](outputs),
            nn.LeakyReLU(0.1, inplace=True),
        )


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut. Input B×inputs×h×w, output B×outputs×h×w."""

    def __init__(self, inputs: int, outputs: int, normalisation: Normalisation = "batch") -> None:
        super().__init__()
        self.first = ConvBlock(inputs, outputs, normalisation=normalisation)
        # As in IBN-Net, a block that mixes does so in its first convolution.
        self.second = ConvBlock(outputs, outputs, normalisation="batch" if normalisation == "mixed" else normalisation)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """B×inputs×h×w -> B×outputs×h×w."""
        out: Tensor = self.second(self.first(x)) + self.shortcut(x)
        return out


class ChannelAttention(nn.Module):
    """Weighs the features of the input channels against each other at every pixel.

    A softmax over the input channels turns scores, which see all channels, into weights that sum to one
    at every pixel; each channel's features are scaled by its weight before they are mixed.

    Args:
        channels: Number of input channels C.
        features: Features F that each channel brings.
        outputs: Features of the fused map.
    """

    def __init__(self, channels: int, features: int, outputs: int) -> None:
        super().__init__()
        self.features = features
        self.score = nn.Conv2d(channels * features, channels, 1)
        self.mix = nn.Conv2d(channels * features, outputs, 1)

    def weights(self, x: Tensor) -> Tensor:
        """B×(C·F)×h×w features -> B×C×h×w attention weights that sum to 1 over C."""
        return torch.softmax(self.score(x), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """B×(C·F)×h×w features, channel by channel -> B×outputs×h×w."""
        fused: Tensor = self.mix(x * self.weights(x).repeat_interleave(self.features, dim=1))
        return fused


class EdgeGate(nn.Module):
    """Lets a skip connection through where the edge features, seen from the decoder, call for it."""

    def __init__(self, skip: int, edges: int) -> None:
        super().__init__()
        self.from_edges = nn.Conv2d(edges, skip, 1)
        self.from_decoder = nn.Conv2d(skip, skip, 1, bias=False)

    def forward(self, skip: Tensor, edges: Tensor, decoder: Tensor) -> Tensor:
        """Weigh B×skip×h×w by a gate in [0, 1]; ``edges`` is B×edges×h×w, ``decoder`` like ``skip``."""
        return skip * torch.sigmoid(self.from_edges(edges) + self.from_decoder(decoder))


class GlobalContext(nn.Module):
    """One transformer block over the coarsest grid: a nerve is found by what lies around it.

    Position enters through a depthwise convolution, so that any input size works (CPE, Chu et al. 2021).
    Input and output B×width×h×w.
    """

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.position = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """B×width×h×w -> B×width×h×w."""
        batch, width, height, columns = x.shape
        x = x + self.position(x)
        tokens = x.flatten(2).transpose(1, 2)
        qkv = self.qkv(self.norm_attention(tokens)).view(batch, -1, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = tokens + self.out(attended)
        tokens = tokens + self.mlp(self.norm_mlp(tokens))
        grid: Tensor = tokens.transpose(1, 2).reshape(batch, width, height, columns)
        return grid
