"""Our batched augmentation beside batchgeneratorsv2's, sample by sample, in one run with one thread.

python -m pip install batchgeneratorsv2 && python benchmarks/augmentation.py
"""

from __future__ import annotations

import time

import numpy as np
import torch
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms

from edgefusion.config import TrainConfig
from edgefusion.training.augment import apply_views, draw_views

BATCH, ROUNDS = 16, 25


def main() -> None:
    torch.set_num_threads(1)
    stack, target = torch.rand(BATCH, 3, 96, 128), (torch.rand(BATCH, 1, 96, 128) > 0.97).float()
    theirs = ComposeTransforms(
        [
            SpatialTransform(
                (96, 128),
                0,
                False,
                p_rotation=1,
                rotation=(-0.2, 0.2),
                p_scaling=1,
                scaling=(0.88, 1.12),
                bg_style_seg_sampling=False,
            ),
            GammaTransform((0.78, 1.28), 0, True, 1, 0),
            MirrorTransform((1,)),
        ]
    )
    seconds: dict[str, list[float]] = {"batchgeneratorsv2": [], "edgefusion": []}
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for image, mask in zip(stack, target, strict=True):
            theirs(image=image, segmentation=mask.to(torch.int16))
        seconds["batchgeneratorsv2"].append(time.perf_counter() - started)
        started = time.perf_counter()
        apply_views(stack, target, draw_views(BATCH, 128 / 96, TrainConfig(), torch.Generator()))
        seconds["edgefusion"].append(time.perf_counter() - started)
    for name, values in seconds.items():
        print(f"{name}: {1000 * np.median(values[1:]):.1f} ms a batch of {BATCH}")
    ratios = np.array(seconds["batchgeneratorsv2"][1:]) / seconds["edgefusion"][1:]
    print(f"ratio, pair by pair: median {np.median(ratios):.2f}")


if __name__ == "__main__":
    main()
