"""EdgeFusion-UNet: a U-Net that weighs its input channels against each other, pixel by pixel, level by level.

Read top to bottom:

1. The frame is folded: each 2×2 pixels become one, with four values (pixel unshuffling, Shi et al. 2016). Nothing is
   lost, and the finest level costs a quarter, which buys twice the features at the same multiply-adds.
   Every input channel then has a stem and a small pyramid of its own (grouped convolutions: no channel sees another
   before the fusion).
2. At every level, attention weighs the channels at each pixel and adds the fused map to the encoder.
3. At the coarsest level one transformer block relates the whole frame.
4. On the way up, each skip connection passes a gate that is opened by the edge channel's features.
5. Three heads: the border band, the mask (which is shown the border), both unfolded to the frame's pixels again, and
   the presence of each label.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgefusion.errors import UsageError
from edgefusion.models.blocks import (
    PRIOR_LOGIT,
    ChannelAttention,
    ConvBlock,
    EdgeGate,
    GlobalContext,
    Normalisation,
    ResidualBlock,
    SegmentationOutput,
)

_FOLD = 2
"""Side of the square of pixels that is folded into one."""


class EdgeFusionUNet(nn.Module):
    """The network.

    Args:
        in_channels: Number of input channels C, at least 1.
        labels: Number of labels L; each has its own sigmoid map.
        widths: Features of the encoder, finest level (half the frame's size) first; halved between levels.
        stem_widths: Features that each input channel brings to each level but the coarsest.
        edge_channel: Which input channel opens the gates of the skip connections.
        dropout: Share of features dropped before the presence head and at the coarsest level.
        channel_dropout: In training, the share of input channels that are blanked, frame by frame; at least one stays.
            Every channel is a view of the same anatomy, and the network must find the nerve in any of them.
        fusion: How the channels' features are joined: weighed by attention, or only concatenated and mixed.
        edge_gates: Whether skip connections pass gates.
        boundary_head: Whether the border band is learnt, and shown to the mask head.
        presence_head: Whether the presence of each label is learnt.
        normalisation: Over what features are normalised, see ``blocks.Normalisation``.

    Raises:
        UsageError: If there is no such ``fusion`` or ``normalisation``.

    ``train`` leaves the presence head out where it could learn nothing; ``fusion``, ``edge_gates`` and
    ``boundary_head`` exist so that ``configs/ablation`` can leave each part out.
    """

    def __init__(
        self,
        in_channels: int,
        labels: int,
        widths: tuple[int, ...] = (32, 68, 128, 192),
        stem_widths: tuple[int, ...] = (8, 16, 24),
        edge_channel: int = -1,
        dropout: float = 0.1,
        channel_dropout: float = 0.3,
        fusion: Literal["attention", "concatenation"] = "attention",
        edge_gates: bool = True,
        boundary_head: bool = True,
        presence_head: bool = True,
        normalisation: Normalisation = "batch",
    ) -> None:
        super().__init__()
        if fusion not in ("attention", "concatenation"):
            raise UsageError(f"There is no fusion '{fusion}'.", "Choose attention or concatenation.")
        if normalisation not in get_args(Normalisation):
            raise UsageError(f"There is no normalisation '{normalisation}'.", "Choose batch, instance or mixed.")
        deep: Normalisation = "batch" if normalisation == "mixed" else normalisation
        self.in_channels = in_channels
        self.channel_dropout = channel_dropout
        self.edge_channel = edge_channel % in_channels
        levels = len(widths) - 1

        stem_inputs = (_FOLD**2, *stem_widths[:-1])
        self.stems = nn.ModuleList(
            ConvBlock(in_channels * a, in_channels * b, 1 if level == 0 else 2, in_channels, normalisation)
            for level, (a, b) in enumerate(zip(stem_inputs, stem_widths, strict=True))
        )
        self.fusions = nn.ModuleList(
            ChannelAttention(in_channels, features, width)
            if fusion == "attention"
            else nn.Conv2d(in_channels * features, width, 1)
            for features, width in zip(stem_widths, widths[:-1], strict=True)
        )
        self.encoders = nn.ModuleList(
            ResidualBlock(widths[max(level - 1, 0)], widths[level], normalisation if level < levels else deep)
            for level in range(levels + 1)
        )
        self.context = GlobalContext(widths[-1])
        self.dropout = nn.Dropout2d(dropout)
        self.reducers = nn.ModuleList(nn.Conv2d(widths[level + 1], widths[level], 1) for level in range(levels))
        gates = nn.ModuleList(EdgeGate(widths[level], stem_widths[level]) for level in range(levels))
        self.gates = gates if edge_gates else None
        self.decoders = nn.ModuleList(ResidualBlock(widths[level], widths[level], deep) for level in range(levels))
        maps = labels * _FOLD**2
        self.boundary_head = nn.Conv2d(widths[0] + stem_widths[0], maps, 3, padding=1) if boundary_head else None
        self.mask_head = nn.Conv2d(widths[0] + (maps if boundary_head else 0), maps, 3, padding=1)
        self.presence_head = (
            nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * widths[-1], labels)) if presence_head else None
        )

    def forward(self, x: Tensor) -> SegmentationOutput:
        """Segment B×C×H×W standardised channels; H and W are multiples of 16."""
        pyramid = self._pyramid(self._blank_channels(x) if self.training else x)
        encoded: list[Tensor] = []
        features: Tensor | None = None
        for stem, fusion, encoder in zip(pyramid, self.fusions, self.encoders, strict=False):
            fused = fusion(stem)
            # The first encoder sees the fused stems; each later one what lies above, halved. A level's
            # fused map enters after its block has brought the features to that level's width.
            features = encoder(fused) if features is None else encoder(F.max_pool2d(features, 2)) + fused
            encoded.append(features)
        assert features is not None
        coarse = self.dropout(self.context(self.encoders[-1](F.max_pool2d(features, 2))))

        decoded = coarse
        for level in reversed(range(len(self.decoders))):
            upsampled = F.interpolate(
                self.reducers[level](decoded), scale_factor=2.0, mode="bilinear", align_corners=False
            )
            skip = encoded[level]
            if self.gates is not None:
                skip = self.gates[level](skip, self._edges(pyramid[level]), upsampled)
            decoded = self.decoders[level](upsampled + skip)

        boundary = presence = None
        if self.boundary_head is not None:
            folded = self.boundary_head(torch.cat([decoded, self._edges(pyramid[0])], 1)) + PRIOR_LOGIT
            boundary = F.pixel_shuffle(folded, _FOLD)
            decoded = torch.cat([decoded, torch.sigmoid(folded)], 1)
        if self.presence_head is not None:
            presence = self.presence_head(torch.cat([coarse.mean((2, 3)), coarse.amax((2, 3))], 1))
        mask = F.pixel_shuffle(self.mask_head(decoded), _FOLD) + PRIOR_LOGIT
        return SegmentationOutput(mask, boundary, presence)

    def attention_maps(self, x: Tensor) -> list[Tensor]:
        """The weight of each input channel at each pixel: one B×C×h×w tensor a level, finest first.

        The finest is half as high and wide as ``x``.
        """
        pairs = zip(self._pyramid(x), self.fusions, strict=True)
        return [fusion.weights(stem) for stem, fusion in pairs]  # type: ignore[operator]

    def _blank_channels(self, x: Tensor) -> Tensor:
        keep = torch.rand(x.shape[:2], device=x.device) >= self.channel_dropout
        keep |= ~keep.any(1, keepdim=True)  # where the lot fell on all channels, all stay
        return x * keep[:, :, None, None]

    def _pyramid(self, x: Tensor) -> list[Tensor]:
        levels = []
        x = F.pixel_unshuffle(x, _FOLD)
        for stem in self.stems:
            x = stem(x)
            levels.append(x)
        return levels

    def _edges(self, stem: Tensor) -> Tensor:
        return stem.chunk(self.in_channels, dim=1)[self.edge_channel]
