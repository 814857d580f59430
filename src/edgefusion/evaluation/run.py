"""Reading the folder that a comparison leaves behind."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from numpy.typing import NDArray

from edgefusion.data.readers import read_labels
from edgefusion.data.splits import Split, read_splits
from edgefusion.errors import DataError, UsageError
from edgefusion.evaluation.aggregate import read_frames

_REFERENCE = "edgefusion-unet"


@dataclass(frozen=True)
class Run:
    """A finished comparison of models."""

    path: Path
    """Its folder."""
    config: dict[str, Any]
    """Its resolved settings, see ``config.CompareConfig``."""
    environment: dict[str, Any]
    """Versions and machine."""
    splits: list[Split]
    """Who was trained on and who was judged."""
    frames: pd.DataFrame
    """One row per model, frame and label."""
    log: pd.DataFrame
    """One row per model, fold and epoch: model, fold, epoch, train_loss, val_dice, seconds."""
    costs: dict[str, dict[str, float]]
    """Of every model: parameters, multiply_adds, ms_per_frame."""
    channels: dict[str, list[str]]
    """What every model sees, by its bundle."""

    @property
    def models(self) -> list[str]:
        """The models in the order of the settings."""
        found = list(self.frames["model"].unique())
        order = list(self.config.get("models", []))
        return sorted(found, key=lambda model: order.index(model) if model in order else len(order))

    @property
    def reference(self) -> str:
        """The model that others are compared with: EdgeFusion-UNet where it took part, else the first."""
        return _REFERENCE if _REFERENCE in self.models else self.models[0]

    @property
    def judged_apart(self) -> bool:
        """Whether every frame was judged by a network that was not trained on its patient."""
        trained = {(split.name, patient) for split in self.splits for patient in split.train}
        judged = set(self.frames[["fold", "patient_id"]].itertuples(index=False, name=None))
        known = {(split.name, patient) for split in self.splits for patient in split.validation}
        return judged <= known - trained

    def prediction(self, model: str, fold: str, frame_id: str) -> NDArray[Any] | None:
        """The predicted label mask of one frame, H×W uint8 at its original size; None if it was not kept."""
        file = self.path / model / fold / "predictions" / f"{frame_id}.png"
        return read_labels(file) if file.is_file() else None


def read_run(path: Path) -> Run:
    """Read a comparison's folder.

    Raises:
        UsageError: If there is no such folder.
        DataError: If a file of it is missing or damaged.
    """
    if not path.is_dir():
        raise UsageError(f"There is no folder {path}.", "Name the output folder of `edgefusion compare`.")
    frames = read_frames(path / "frames.csv")
    units = frames[["model", "fold"]].drop_duplicates().itertuples(index=False, name=None)
    folders: dict[tuple[str, str], Path] = {(model, fold): path / model / fold for model, fold in units}
    return Run(
        path=path,
        config=_mapping(path / "config.yaml"),
        environment=_mapping(path / "env.json"),
        splits=read_splits(path / "splits.json"),
        frames=frames,
        log=_logs(folders),
        costs=_mapping(path / "costs.json"),
        channels={
            model: _mapping(folder / "bundle.yaml")["recipe"]["channels"] for (model, _), folder in folders.items()
        },
    )


def _mapping(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON file (JSON is YAML) that holds a mapping."""
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except FileNotFoundError:
        raise DataError(f"{path} is missing.", "Run `edgefusion compare` to the end first.") from None
    except (ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read: {error}.", "Run `edgefusion compare` again.") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} holds no settings.", "Run `edgefusion compare` again.")
    return value


def _logs(folders: dict[tuple[str, str], Path]) -> pd.DataFrame:
    tables = [
        pd.read_csv(folder / "log.csv").assign(model=model, fold=fold)
        for (model, fold), folder in folders.items()
        if (folder / "log.csv").is_file()
    ]
    columns = ["model", "fold", "epoch", "train_loss", "val_dice", "seconds"]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)
