"""The Lightning module: one step, one validation, one optimiser, the same for every network."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from edgefusion.config import TrainConfig
from edgefusion.models.blocks import standardise
from edgefusion.training.augment import apply_views, draw_views
from edgefusion.training.losses import segmentation_loss
from edgefusion.training.ranks import from_all_sum, ranks, share
from edgefusion.training.texture import speckle_and_haze
from edgefusion.training.whole_batch import WholeBatchChance


class SegmentationTask(LightningModule):
    """Trains one network.

    Args:
        model: A network of the zoo.
        config: How to train it.
        batch_size: Frames a step, of all ranks together.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, batch_size: int) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.config = config
        self.batch_size = batch_size
        self._overlap: list[Tensor] = []

    def on_train_epoch_start(self) -> None:
        """Seed dropout by the epoch, so that a resumed run goes on as an undisturbed one would."""
        torch.manual_seed(self.config.seed * 100_003 + self.current_epoch)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Loss of one randomly viewed batch: B×C×H×W channels and B×L×H×W targets, both in [0, 1].

        Chance is drawn for the frames of all ranks, so that together they see and do what one process would.
        """
        stack, target = batch
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.global_step)
        views = draw_views(self.batch_size, stack.shape[3] / stack.shape[2], self.config, generator)
        stack, target = apply_views(stack, target, views.of(share(self.batch_size)).to(stack.device))
        if self.config.texture:
            stack = speckle_and_haze(stack, generator, self.batch_size)
        with WholeBatchChance(self.batch_size) if ranks() > 1 else nullcontext():
            output = self._run(stack)
        loss = segmentation_loss(output, target, self.config)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(stack))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Dice of each masked frame at the network's size; the final scores are taken at the frame's own size."""
        stack, target = batch
        if not len(stack):  # a last batch with fewer frames than there are ranks
            return
        found, truth = self._run(stack).mask > 0, target >= 0.5
        both = (found & truth).sum((2, 3)).float()
        total = (found.sum((2, 3)) + truth.sum((2, 3))).float()
        self._overlap.append((2 * both / total.clamp(min=1))[truth.any(3).any(2)].cpu())

    def on_validation_epoch_end(self) -> None:
        """Log the mean over the masked frames of all ranks."""
        values = torch.cat([torch.zeros(0), *self._overlap]).double()
        self._overlap.clear()
        total, frames = from_all_sum(torch.tensor([float(values.sum()), float(len(values))], dtype=torch.float64))
        self.log("val_dice", (total / frames.clamp(min=1)).float())

    def configure_optimizers(self) -> Any:
        """AdamW, one-cycle."""
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.config.learning_rate, total_steps=max(steps, 2)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _run(self, stack: Tensor) -> Any:
        return self.model(standardise(stack).contiguous(memory_format=torch.channels_last))
