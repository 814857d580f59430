"""How fast the first steps are with and without the prior on the logits: forty AdamW steps on ten frames of a study.

python benchmarks/prior.py runs/kaggle
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from edgefusion.config import ChannelRecipe, TrainConfig
from edgefusion.data.study import Study
from edgefusion.models.blocks import PRIOR_LOGIT, standardise
from edgefusion.models.zoo import build_model
from edgefusion.training.dataset import load_frames
from edgefusion.training.losses import segmentation_loss

FRAMES, STEPS = 10, 40


def main(folder: Path) -> None:
    study = Study.load(folder)
    ids = [str(name) for name in study.labelled()["frame_id"]]
    frames = load_frames(study, ids[:: len(ids) // FRAMES][:FRAMES], ChannelRecipe(("raw",)), study.cache)
    stack, target = frames.__getitems__(list(range(FRAMES)))
    config = TrainConfig()
    for name in ("unet", "resunet"):
        for prior in (False, True):
            torch.manual_seed(0)
            network = build_model(name, 1, len(study.labels)).train()
            optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate)
            losses = []
            for _ in range(STEPS):
                output = network(standardise(stack))
                if not prior:
                    output = output._replace(mask=output.mask - PRIOR_LOGIT)
                loss = segmentation_loss(output, target, config)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            print(f"{name}, {'with' if prior else 'without'} the prior: {losses[0]:.2f} -> {losses[-1]:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
