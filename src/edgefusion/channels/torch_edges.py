"""The default edge map on torch tensors, for use inside a network. Import it on demand: it imports torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from edgefusion.channels.edges import COARSE_SIGMA, FLAT, SHARE_BELOW_ONE
from edgefusion.channels.smoothing import gaussian_kernel
from edgefusion.errors import UsageError


def edge_map_tensor(images: Tensor, denoised: Tensor) -> Tensor:
    """The same map as ``edgefusion.edge_map(image, denoised, "fused")``, on the tensor's own device.

    Args:
        images: B×1×H×W float32 in [0, 1].
        denoised: The same frames despeckled by DPAD, B×1×H×W in [0, 1].

    Returns:
        B×1×H×W float32 in [0, 1]; equal to the compiled map within 1e-4.

    Raises:
        UsageError: For another shape.
    """
    if images.ndim != 4 or images.shape[1] != 1 or denoised.shape != images.shape:
        raise UsageError(f"Frames and despeckled frames are B×1×H×W, not {(*images.shape,)} and {(*denoised.shape,)}.")
    fine, coarse = _normalised(_sobel(denoised)), _normalised(_sobel(_gaussian(images)))
    return (fine + coarse) / 2


def _bordered(images: Tensor, width: int) -> Tensor:
    return pad(images, (width, width, width, width), mode="replicate")


def _sobel(images: Tensor) -> Tensor:
    step = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    gradient = conv2d(_bordered(images, 1), torch.stack([step, step.T])[:, None].to(images))
    return gradient.square().sum(1, keepdim=True).sqrt()


def _gaussian(images: Tensor) -> Tensor:
    kernel = torch.from_numpy(gaussian_kernel(COARSE_SIGMA)).to(images)
    bordered = _bordered(images, len(kernel) // 2)
    return conv2d(conv2d(bordered, kernel[None, None, None, :]), kernel[None, None, :, None])


def _normalised(edges: Tensor) -> Tensor:
    ordered = edges.flatten(1).sort(1).values
    scale = ordered[:, round(SHARE_BELOW_ONE * (ordered.shape[1] - 1))].clamp(min=FLAT)
    return (edges / scale[:, None, None, None]).clamp(max=1)
