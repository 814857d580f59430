"""Made-up tables of frames and finished runs for the tests of this room."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from edgefusion.config import ChannelRecipe, CompareConfig, SplitConfig
from edgefusion.data.splits import make_splits, write_splits
from edgefusion.data.study import Study, frames_table, store_frame, write_png
from edgefusion.evaluation.metrics import frame_measures
from edgefusion.files import write_json, write_text

AREA = 1000
MakeFrames = Callable[..., pd.DataFrame]


def frames_of_model(
    model: str,
    *,
    shift: float = 0.0,
    patients: int = 12,
    frames: int = 8,
    empty_share: float = 0.25,
    label: str = "nerve",
    seed: int = 0,
) -> pd.DataFrame:
    """Rows of one model; the patients and the frames' difficulty depend on ``seed`` alone."""
    world = np.random.default_rng(seed)
    own = np.random.default_rng([seed, *model.encode()])
    rows = []
    for patient in range(patients):
        skill = world.normal(0.75, 0.08)
        for frame in range(frames):
            has_nerve = bool(world.random() >= empty_share)
            overlap = float(np.clip(skill + world.normal(0, 0.05) + shift + own.normal(0, 0.02), 0.05, 0.99))
            rows.append(
                {
                    **{"model": model, "fold": f"fold_{patient % 2}", "label": label},
                    **{"frame_id": f"p{patient}_{frame}", "patient_id": f"p{patient}", "has_nerve": has_nerve},
                    **_scores(has_nerve, overlap, own),
                }
            )
    return pd.DataFrame(rows)


def _scores(has_nerve: bool, overlap: float, own: np.random.Generator) -> dict[str, float]:
    if not has_nerve:
        alarm = own.random() < 0.2
        predicted = 300 if alarm else 0
        return {
            **{"presence": float(own.uniform(0.5, 0.9) if alarm else own.uniform(0.0, 0.5))},
            **{"dice": float(not alarm), "precision": float(not alarm), "recall": np.nan if alarm else 1.0},
            **{"tp": 0, "fp": predicted, "fn": 0, "boundary_f1": float(not alarm), "hd95": np.nan},
            **{"surface_distance": np.nan, "predicted_area": predicted, "true_area": 0},
        }
    tp = round(overlap * AREA)
    return {
        **{"presence": float(own.uniform(0.4, 1.0)), "dice": tp / AREA, "precision": tp / AREA, "recall": tp / AREA},
        **{"tp": tp, "fp": AREA - tp, "fn": AREA - tp, "boundary_f1": overlap * 0.7, "hd95": 40 * (1 - overlap) + 2},
        **{"surface_distance": 12 * (1 - overlap) + 1, "predicted_area": AREA, "true_area": AREA},
    }


@pytest.fixture
def make_frames() -> MakeFrames:
    return frames_of_model


@pytest.fixture
def repeat() -> Callable[..., pd.DataFrame]:
    """Adds the same frames, judged again after trainings with other seeds."""

    def repeated(frames: pd.DataFrame, *changes: dict[str, object]) -> pd.DataFrame:
        seeds = [frames, *(frames.assign(**change) for change in changes)]
        return pd.concat(
            [table.assign(fold=table["fold"] + f"_seed_{seed}") for seed, table in enumerate(seeds)], ignore_index=True
        )

    return repeated


@pytest.fixture
def two_models() -> pd.DataFrame:
    return pd.concat([frames_of_model("edgefusion-unet", shift=0.05), frames_of_model("unet")], ignore_index=True)


def make_run(
    folder: Path,
    models: Sequence[str],
    labels: Sequence[str] = ("nerve",),
    folds: int = 2,
    seeds: Sequence[int] = (0,),
    **settings: Any,
) -> Study:
    """Write a small study and a finished run on it.

    Predictions are the truth, moved a little more for every model and seed. ``settings`` are those of the run.
    """
    world = np.random.default_rng(5)
    rows = []
    for patient in range(6):
        for frame in range(4):
            image = world.integers(0, 255, (60, 80), dtype=np.uint8)
            mask = np.zeros((60, 80), np.uint8)
            for value in range(1, len(labels) + 1):
                if frame < 3:
                    row, column = 8 + 3 * patient, 30 * (value - 1) + 10 + 2 * frame
                    mask[row : row + 14 + frame, column : column + 18] = value
            rows.append(store_frame(folder / "study", f"p{patient}_{frame}", f"p{patient}", image, mask))
    study = Study(folder / "study", "Necks & <b>more</b>", list(labels), "phantoms", "CC0.", frames_table(rows))
    study.save()
    run = folder / "run"
    settings = {"recipe": ChannelRecipe(channels=("raw", "dpad", "edges")), "seeds": tuple(seeds), **settings}
    config = CompareConfig(models=tuple(models), **settings)
    repeated = [
        (seed, split if len(seeds) == 1 else dataclasses.replace(split, name=f"{split.name}_seed_{seed}"))
        for seed in seeds
        for split in make_splits(study, SplitConfig(folds=folds))
    ]
    splits = [split for _, split in repeated]
    write_splits(run / "splits.json", splits)
    settings = {"study": str(study.path), **json.loads(json.dumps(dataclasses.asdict(config)))}
    write_text(run / "config.yaml", yaml.safe_dump(settings))
    write_json(run / "env.json", {"processor": "a machine", "packages": {"numpy": "2"}})
    write_json(run / "costs.json", {m: {"parameters": 5e5, "multiply_adds": 3e8, "ms_per_frame": 8.0} for m in models})
    table = []
    for seed, split in repeated:
        for place, model in enumerate(models):
            _write_unit(run / model / split.name, model)
            for frame_id in split.validation_frames(study):
                truth = study.mask(frame_id)
                assert truth is not None
                found = np.roll(truth, place + seed + int(frame_id[1]) % 3, axis=1)
                write_png(run / model / split.name / "predictions" / f"{frame_id}.png", found)
                for value, label in enumerate(labels, start=1):
                    has_nerve = bool((truth == value).any())
                    table.append(
                        {
                            **{"model": model, "fold": split.name, "label": label, "frame_id": frame_id},
                            **{"patient_id": frame_id[:2], "presence": 0.9 - 0.6 * (not has_nerve)},
                            **{"has_nerve": has_nerve, **frame_measures(found == value, truth == value)},
                        }
                    )
    write_text(run / "frames.csv", pd.DataFrame(table).to_csv(index=False))
    return study


def _write_unit(folder: Path, model: str) -> None:
    channels = ["raw", "dpad", "edges"] if model == "edgefusion-unet" else ["raw"]
    write_text(folder / "bundle.yaml", yaml.safe_dump({"recipe": {"channels": channels}}))
    epochs = pd.DataFrame({"epoch": [1, 2], "train_loss": [1.0, 0.5], "val_dice": [0.4, 0.7], "seconds": [60.0, 60.0]})
    write_text(folder / "log.csv", epochs.to_csv(index=False))


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    """A run of two models on one label, and its study. Copy it before changing anything."""
    folder = tmp_path_factory.mktemp("finished")
    study = make_run(folder, ["edgefusion-unet", "unet"])
    return folder / "run", study


@pytest.fixture(scope="session")
def make_finished_run() -> Callable[..., Study]:
    return make_run
