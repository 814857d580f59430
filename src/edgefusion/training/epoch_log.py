"""What a training says and writes after every epoch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from lightning.pytorch import Callback, LightningModule, Trainer

from edgefusion.files import write_text
from edgefusion.progress import say


class EpochLog(Callback):
    """Writes ``log.csv`` after every epoch and says how it went, on the first rank; keeps the log on every one.

    Args:
        path: The file; columns epoch, train_loss, val_dice, seconds.
        title: Name of the run.
        epochs: How many there will be.
    """

    def __init__(self, path: Path, title: str, epochs: int) -> None:
        self.path, self.title, self.epochs = path, title, epochs
        self.rows: list[dict[str, float]] = []
        self._started = 0.0

    def table(self) -> pd.DataFrame:
        """The log so far."""
        return pd.DataFrame(self.rows, columns=["epoch", "train_loss", "val_dice", "seconds"])

    def state_dict(self) -> dict[str, Any]:
        """The log travels in the checkpoint, so that it always agrees with the weights."""
        return {"rows": self.rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the log of the checkpoint."""
        self.rows = list(state["rows"])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row."""
        values = trainer.callback_metrics
        seconds = time.monotonic() - self._started
        self.rows.append(
            {
                "epoch": trainer.current_epoch + 1,
                "train_loss": float(values["train_loss"]),
                "val_dice": float(values["val_dice"]),
                "seconds": round(seconds, 2),
            }
        )
        if trainer.global_rank:
            return
        write_text(self.path, self.table().to_csv(index=False))
        left = seconds * (self.epochs - len(self.rows))
        say(
            f"{self.title}: epoch {len(self.rows)}/{self.epochs}, loss {self.rows[-1]['train_loss']:.3f}, "
            f"validation Dice {self.rows[-1]['val_dice']:.3f}, {seconds:.0f} s"
            + (f", about {left:.0f} s left" if left else "")
        )
