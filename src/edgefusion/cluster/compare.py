"""A comparison whose trainings run on the machines of a Ray cluster."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from edgefusion.cluster.connection import connected
from edgefusion.cluster.tasks import InTurn, Tasks, run_one
from edgefusion.cluster.workers import (
    check_installation,
    installation,
    load_study,
    mark,
    pack,
    sees,
    unpack,
    wait_for_former_run,
)
from edgefusion.config import CompareConfig
from edgefusion.data.splits import Split
from edgefusion.data.study import Study
from edgefusion.files import write_json
from edgefusion.models.zoo import build_model
from edgefusion.progress import say, track
from edgefusion.remote import Place
from edgefusion.training.crossval import Unit, compare, network_of, recipe_of, run_unit, unit_folder
from edgefusion.training.dataset import load_frames
from edgefusion.training.precision import choose_precision

_FRAMES_TO_TIME = 4


def compare_on_ray(
    study: Study | Path | str,
    output: Path | str,
    config: CompareConfig | None = None,
    splits: list[Split] | None = None,
    address: str = "auto",
    cpus_per_task: int = 1,
) -> Path:
    """``training.crossval.compare`` with every training a task of a Ray cluster.

    The numbers are those of a local run with as many threads a training. A task whose worker is lost begins again, on
    any machine; where workers see ``output``, from its last epoch. Workers that do not see it train in a temporary
    folder and send the result to this process. The study has to be at the same path on every machine. When this
    process itself is stopped, the same call goes on.

    Args:
        study: A study with labelled frames, or its folder.
        output: Folder of the run.
        config: What to compare, and how to train. With ``train.precision`` "auto" a worker times both formats once a
            network, and every training of the run uses what was faster there.
        splits: Patients of each fold; by default made from ``config.split``.
        address: See ``connection.connected``.
        cpus_per_task: Cores and threads of every training.

    Returns:
        Path of ``report.html``.

    Raises:
        UsageError: As ``compare`` does, or if the cluster cannot be joined, has no machine with so many cores, or has
            one with another version of Python, torch or this package.
        DataError: If a machine does not see the study.
    """
    with connected(address):
        return compare(study, output, config, splits, run_units=partial(_run_units, cpus=cpus_per_task))


def _run_units(study_path: Place, output: Path, config: CompareConfig, todo: list[Unit], cpus: int) -> None:
    if not todo:
        return
    study_path, output = study_path.absolute(), output.absolute()
    study_sha256 = Study.load(study_path).sha256()
    if config.pretrained:
        config = replace(config, pretrained=str(Path(config.pretrained).absolute()))
    formats = chosen_formats(study_path, study_sha256, output, config, cpus)
    tasks, word = Tasks(train_and_judge, cpus), mark(output)
    for unit in todo:
        own = replace(config, train=replace(config.train, precision=formats[unit[0]]))
        tasks.start(unit, study_path, study_sha256, output, word, own, unit, cpus, installation())
    for (name, split, _), result in track(tasks.finished(), "Trainings", total=len(todo)):
        if result is not None:
            unpack(result, unit_folder(output, name, split))
        say(f"{name} {split.name}: trained and judged")


def train_and_judge(
    study_path: Place,
    study_sha256: str,
    output: Path,
    word: str,
    config: CompareConfig,
    unit: Unit,
    threads: int,
    driver: dict[str, str],
    title: str = "",
) -> bytes | None:
    """One task: train and judge a network on a fold, in ``output`` or, where that is not to be seen, apart.

    Returns:
        The folder's content (see ``workers.pack``), or None if it lies in ``output``.
    """
    check_installation(driver)
    torch.set_num_threads(threads)
    load_study(study_path, study_sha256)
    if sees(output, word):
        wait_for_former_run(unit_folder(output, *unit[:2]))
        run_unit(study_path, output, config, unit, title)
        return None
    with tempfile.TemporaryDirectory(prefix="edgefusion-") as folder:
        run_unit(study_path, Path(folder), config, unit, title)
        return pack(unit_folder(Path(folder), *unit[:2]))


Format = Literal["32", "bf16"]


def chosen_formats(
    study_path: Place,
    study_sha256: str,
    output: Path,
    config: CompareConfig,
    cpus: int,
    where: type[Tasks] | type[InTurn] = Tasks,
) -> dict[str, Format]:
    """The number format of every network: the settings', or what a worker found faster when the run began."""
    if config.train.precision != "auto":
        return dict.fromkeys(config.models, config.train.precision)
    file = output / "precision.json"
    if not file.is_file():
        arguments = (study_path, study_sha256, config, cpus, installation())
        write_json(file, run_one(faster_formats, cpus, arguments, where))
    chosen: dict[str, Format] = json.loads(file.read_text(encoding="utf-8"))
    return chosen


def faster_formats(
    study_path: Place, study_sha256: str, config: CompareConfig, threads: int, driver: dict[str, str]
) -> dict[str, Format]:
    """One task: which number format trains each network faster on this worker."""
    check_installation(driver)
    torch.set_num_threads(threads)
    study = load_study(study_path, study_sha256)
    frame_ids = list(study.labelled()["frame_id"])[:_FRAMES_TO_TIME]
    formats: dict[str, Format] = {}
    for name in config.models:
        recipe = recipe_of(name, config)
        frames = load_frames(study, frame_ids, recipe, study.cache)
        network = build_model(name, len(recipe.channels), len(study.labels), **network_of(name, config))
        chosen = choose_precision(network, frames, config.train)
        formats[name] = "bf16" if chosen == "bf16-mixed" else "32"
    return formats
