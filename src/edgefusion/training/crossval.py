"""Compare networks on one study: every network on every fold, judged at the frames' own size, then the report."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from edgefusion.bundle import Bundle
from edgefusion.channels.recipe import cached_stacks, check_channels
from edgefusion.config import ChannelRecipe, CompareConfig
from edgefusion.data.splits import Split, make_splits, read_splits, write_splits
from edgefusion.data.study import Study, write_png
from edgefusion.environment import environment
from edgefusion.errors import UsageError
from edgefusion.evaluation.aggregate import read_frames
from edgefusion.evaluation.evaluate import judge, predict_frames
from edgefusion.evaluation.report import write_report
from edgefusion.files import atomic_path, sha256_of_file, write_json, write_text
from edgefusion.inference.predictor import Predictor
from edgefusion.locking import sole_use
from edgefusion.models.costs import measure
from edgefusion.models.zoo import build_model, check_size
from edgefusion.progress import say
from edgefusion.remote import Place
from edgefusion.training.train import train


def compare(
    study: Study | Path | str,
    output: Path | str,
    config: CompareConfig | None = None,
    splits: list[Split] | None = None,
    jobs: int = 1,
    run_units: RunUnits | None = None,
) -> Path:
    """Train every network on every fold, judge each on its fold's held-out patients, and write the report.

    A run can be interrupted and started again with the same settings: what is complete is kept, and
    the training that was under way goes on from its last epoch.

    Args:
        study: A study with labelled frames, or its folder.
        output: Folder of the run: ``report.html``, ``summary.json``, ``frames.csv`` and a bundle a network and fold.
        config: What to compare, and how to train.
        splits: Patients of each fold; by default made from ``config.split``.
        jobs: How many trainings run side by side; the cores are shared among them.
        run_units: Runs the trainings somewhere else, such as on the machines of a cluster; ``jobs`` is then without
            meaning.

    Returns:
        Path of ``report.html``.

    Raises:
        UsageError: For unknown names, or if ``output`` holds a run with other settings, or another process is at work
            there.
    """
    study = study if isinstance(study, Study) else Study.load(study)
    config, output = config or CompareConfig(), Path(output)
    check_channels(config.recipe.channels)
    check_size(config.recipe.height, config.recipe.width)
    for name in config.models:
        # Refuses unknown names and arguments before anything is filtered or trained.
        build_model(name, len(recipe_of(name, config).channels), len(study.labels), **network_of(name, config))
    splits = splits or make_splits(study, config.split)
    seeds = config.seeds or (config.train.seed,)
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"A seed is named twice: {', '.join(map(str, seeds))}.", "Name every seed once.")
    # With several seeds, each repetition of a fold is a fold of its own: the same patients, another network.
    repeated = [(replace(split, name=_fold_name(split, seed, seeds)), seed) for seed in seeds for split in splits]
    _start_run(study, output, config, [split for split, _ in repeated])

    with sole_use(output):
        units = [(name, split, seed) for split, seed in repeated for name in config.models]
        # Filter every frame once, before several trainings would do so side by side.
        for recipe in {recipe_of(name, config).key(): recipe_of(name, config) for name in config.models}.values():
            cached_stacks(study, list(study.labelled()["frame_id"]), recipe, study.cache)
        todo = [unit for unit in units if not (unit_folder(output, *unit[:2]) / "metrics.csv").is_file()]
        if len(todo) < len(units):
            say(f"{len(units) - len(todo)} of {len(units)} trainings are complete already")
        (run_units or partial(_run_units, jobs=jobs))(study.path, output, config, todo)
        tables = [read_frames(unit_folder(output, *unit[:2]) / "metrics.csv") for unit in units]
        write_text(output / "frames.csv", pd.concat(tables).to_csv(index=False))
        write_json(output / "costs.json", _costs(study, output, config, repeated[0][0]))
        return write_report(output, study)


def _fold_name(split: Split, seed: int, seeds: tuple[int, ...]) -> str:
    return split.name if len(seeds) == 1 else f"{split.name}_seed_{seed}"


def _start_run(study: Study, output: Path, config: CompareConfig, splits: list[Split]) -> None:
    """Make the run's folder, or check that the one that is there is the same run."""
    settings = {"study": str(study.path), "study_sha256": study.sha256(), **_plain(dataclasses.asdict(config))}
    if config.pretrained:
        starts = {name: _start_of(name, config) for name in config.models}
        settings["pretrained_sha256"] = {
            name: sha256_of_file(start / "model.safetensors") for name, start in starts.items()
        }
    file = output / "config.yaml"
    if file.is_file():
        before = _completed(yaml.safe_load(file.read_text(encoding="utf-8")))
        changed = [key for key in settings if key != "study" and before.get(key) != settings[key]]
        if changed:
            raise UsageError(
                f"{output} holds a run with other settings ({', '.join(changed)}).", "Choose another output folder."
            )
    elif output.is_dir() and any(output.iterdir()):
        raise UsageError(f"{output} is not empty and is not a run.", "Choose another output folder.")
    write_text(file, yaml.safe_dump(settings, sort_keys=False))
    write_json(output / "env.json", environment())
    write_splits(output / "splits.json", splits)


def _completed(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run with those that did not exist when it began, as it was then."""
    defaults = _plain(dataclasses.asdict(CompareConfig()))
    defaults["train"]["reshuffle"] = False  # the only option whose default is not what was before it
    whole = {**defaults, **settings}
    return {
        key: {**defaults[key], **value} if isinstance(value, dict) and isinstance(defaults.get(key), dict) else value
        for key, value in whole.items()
    }


def _plain(value: Any) -> Any:
    """Tuples as lists, so that what is written equals what is read back."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def recipe_of(name: str, config: CompareConfig) -> ChannelRecipe:
    """What one of the networks sees."""
    if name == "edgefusion-unet" or config.baseline_channels == "all":
        return config.recipe
    return replace(config.recipe, channels=("raw",))


def network_of(name: str, config: CompareConfig) -> dict[str, Any]:
    """The arguments of one of the networks."""
    return config.network if name == "edgefusion-unet" else {}


def _start_of(name: str, config: CompareConfig) -> Path:
    """The bundle that a network starts from: in the first fold of the run of its pretraining."""
    run = Path(config.pretrained)
    start = run / name / read_splits(run / "splits.json")[0].name
    if not (start / "bundle.yaml").is_file():
        raise UsageError(f"{run} has no trained {name} to start from.", "Compare the same networks there first.")
    return start


Unit = tuple[str, Split, int]
"""One training: network, fold and seed."""

RunUnits = Callable[[Place, Path, CompareConfig, list[Unit]], None]
"""Runs trainings, given the study, the run's folder and the settings; when it returns, ``unit_folder`` of each has its
``metrics.csv``."""


def unit_folder(output: Path, name: str, split: Split) -> Path:
    """Where one training and its judgement are kept."""
    return output / name / split.name


def _run_units(study: Place, output: Path, config: CompareConfig, todo: list[Unit], jobs: int) -> None:
    if jobs == 1 or len(todo) < 2:
        for unit in todo:
            run_unit(study, output, config, unit)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker, initargs=(threads,)) as pool:
        with _interrupts_held():
            futures = [pool.submit(run_unit, study, output, config, unit) for unit in todo]
        try:
            _, waiting = wait(futures, return_when=FIRST_EXCEPTION)
        except KeyboardInterrupt:
            # Workers would go on to the next training. Every epoch is saved, so they may be stopped at once.
            for worker in multiprocessing.active_children():
                worker.kill()
            raise
        for future in waiting:
            future.cancel()
        for future in futures:
            if not future.cancelled():
                future.result()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait until the block ends. Processes that it starts never hear of it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(threads: int) -> None:
    # Ctrl-C in a terminal reaches every process; what it means is for the parent to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)


def run_unit(study_path: Place, output: Path, config: CompareConfig, unit: Unit, title: str = "") -> None:
    """Train and judge one network on one fold; its ``metrics.csv`` is written last. ``title`` is for progress lines."""
    name, split, seed = unit
    study, folder = Study.load(study_path), unit_folder(output, name, split)
    bundle = train(
        study,
        name,
        folder,
        replace(config.train, seed=seed),
        recipe_of(name, config),
        split,
        resume=True,
        title=title or f"{name} {split.name}",
        network=network_of(name, config),
        start=_start_of(name, config) if config.pretrained else None,
    )
    frame_ids = split.validation_frames(study)
    predictions = predict_frames(study, bundle, frame_ids, config.flip_averaging)
    rows = []
    for frame_id, prediction in zip(frame_ids, predictions, strict=True):
        rows += judge(study, frame_id, prediction)
        with atomic_path(folder / "predictions" / f"{frame_id}.png") as temporary:
            write_png(temporary, prediction.mask)
    table = pd.DataFrame(rows)
    table.insert(0, "model", name)
    table.insert(1, "fold", split.name)
    write_text(folder / "metrics.csv", table.to_csv(index=False))


def _costs(study: Study, output: Path, config: CompareConfig, split: Split) -> dict[str, dict[str, float]]:
    """Parameters, multiply-adds, and milliseconds a frame of each network, timed in turn."""
    image = study.image(split.validation_frames(study)[0])
    predictors = {}
    costs: dict[str, dict[str, float]] = {}
    for name in config.models:
        bundle = Bundle.load(unit_folder(output, name, split))
        recipe = bundle.recipe
        costs[name] = dict(measure(bundle.model, len(recipe.channels), recipe.height, recipe.width))
        predictors[name] = Predictor(bundle)
    times: dict[str, list[float]] = {name: [] for name in predictors}
    # In turn, so that a busy moment of the machine strikes all networks alike.
    for _ in range(10):
        for name, predictor in predictors.items():
            started = time.perf_counter()
            predictor.predict(image)
            times[name].append(time.perf_counter() - started)
    for name, values in times.items():
        costs[name]["ms_per_frame"] = round(1000 * sorted(values)[len(values) // 2], 2)
    return costs
