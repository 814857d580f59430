"""Searching for the settings with which a network is best on validation patients, here or on a Ray cluster."""

from __future__ import annotations

import dataclasses
import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
import yaml

from edgefusion.cluster.compare import chosen_formats, train_and_judge
from edgefusion.cluster.connection import connected
from edgefusion.cluster.space import Trial, applied, distributions, propose
from edgefusion.cluster.tasks import InTurn, Tasks
from edgefusion.cluster.trials import (
    best_of,
    read_trials,
    trial_folder,
    write_proposal,
    write_result,
    write_summary,
)
from edgefusion.cluster.workers import installation, mark, unpack
from edgefusion.config import CompareConfig, SearchConfig
from edgefusion.data.splits import Split, make_splits, write_splits
from edgefusion.data.study import Study
from edgefusion.environment import environment
from edgefusion.errors import UsageError
from edgefusion.evaluation.aggregate import read_frames
from edgefusion.files import write_json, write_text
from edgefusion.locking import sole_use
from edgefusion.models.zoo import check_name
from edgefusion.progress import say
from edgefusion.training.crossval import unit_folder


def search(
    study: Study | Path | str,
    output: Path | str,
    config: SearchConfig,
    trials: int = 20,
    address: str | None = None,
    cpus_per_task: int = 1,
) -> Path:
    """Try settings one after the other, or side by side on a cluster, and keep the best.

    A trial trains the network on every fold and is judged by the mean Dice over the folds' validation frames that have
    a mask, at the frames' own size. A search that was stopped goes on with the same call: a trial that was under way is
    tried again, from its last epoch. More ``trials`` continue a search that ended.

    Args:
        study: A study with labelled frames, or its folder.
        output: Folder of the search: ``search.csv``, ``search.svg``, ``best.yaml`` and the trials' trainings.
        config: What is searched and how.
        trials: How many trials there are to be in all.
        address: A Ray cluster, see ``connection.connected``; by default the trials run here in turn. On a cluster "tpe"
            learns from the trials that have ended, whose order is the machines'; "random" proposes the same as here.
        cpus_per_task: Cores and threads of every training on the cluster.

    Returns:
        Path of ``best.yaml``.

    Raises:
        UsageError: For a space that makes no sense, a folder with another search, or as ``compare_on_ray`` does.
    """
    study = study if isinstance(study, Study) else Study.load(study)
    output = Path(output).absolute()
    if len(config.base.models) != 1:
        raise UsageError("A search is for one network.", "Give one --model.")
    if trials < 1:
        raise UsageError(f"{trials} trials find nothing.", "Give at least 1.")
    check_name(config.base.models[0])
    # A baseline sees what the recipe says as well, since it is compared with itself alone.
    config = replace(config, base=replace(config.base, baseline_channels="all"))
    applied(dict.fromkeys(distributions(config.space)), config.base)
    splits = make_splits(study, config.base.split)
    area = study.labelled().set_index("frame_id")["area_px"]
    if not all((area[split.validation_frames(study)] > 0).any() for split in splits):
        raise UsageError("No validation frame has a mask to be judged by.", "Hold out other patients.")
    with connected(address) if address else nullcontext(), sole_use(output):
        _start_search(study, output, config, splits)
        tasks = Tasks(train_and_judge, cpus_per_task) if address else InTurn(train_and_judge, torch.get_num_threads())
        _run(study, output, config, splits, trials, tasks)
    return output / "best.yaml"


def _start_search(study: Study, output: Path, config: SearchConfig, splits: list[Split]) -> None:
    """Fill the search's folder, or check that the one that is there is the same search."""
    settings = {"study_sha256": study.sha256(), **json.loads(json.dumps(dataclasses.asdict(config)))}
    file = output / "search.yaml"
    if file.is_file():
        before = yaml.safe_load(file.read_text(encoding="utf-8"))
        changed = [key for key in settings if before.get(key) != settings[key]]
        if changed:
            raise UsageError(
                f"{output} holds a search with other settings ({', '.join(changed)}).", "Choose another output folder."
            )
    elif any(path.name != ".lock" for path in output.iterdir()):
        raise UsageError(f"{output} is not empty and is not a search.", "Choose another output folder.")
    write_text(file, yaml.safe_dump(settings, sort_keys=False))
    write_json(output / "env.json", environment())
    write_splits(output / "splits.json", splits)


def _run(
    study: Study, output: Path, config: SearchConfig, splits: list[Split], trials: int, tasks: InTurn | Tasks
) -> None:
    study_path, study_sha256 = study.path.absolute(), study.sha256()
    name = config.base.models[0]
    formats = chosen_formats(study_path, study_sha256, output, config.base, tasks.cpus, type(tasks))
    base = replace(config.base, train=replace(config.base.train, precision=formats[name]))
    numbers, left = iter(range(trials)), dict[int, int]()

    def begin_a_trial() -> None:
        for number in numbers:
            trial = _trial(output, config, number)
            if trial.dice is not None:
                continue
            folder, settings = trial_folder(output, number), applied(trial.settings, base)
            todo = [split for split in splits if not (unit_folder(folder, name, split) / "metrics.csv").is_file()]
            if not todo:
                _conclude(output, base, splits, number, trials)
                continue
            left[number], word = len(todo), mark(folder)
            for split in todo:
                unit = (name, split, settings.train.seed)
                key, title = (number, split), f"trial {number}, {name} {split.name}"
                tasks.start(
                    key, study_path, study_sha256, folder, word, settings, unit, tasks.cpus, installation(), title
                )
            return

    for _ in range(-(-tasks.room // len(splits))):
        begin_a_trial()
    for (number, split), result in tasks.finished():
        if result is not None:
            unpack(result, unit_folder(trial_folder(output, number), name, split))
        left[number] -= 1
        if not left[number]:
            _conclude(output, base, splits, number, trials)
            begin_a_trial()
    write_summary(output, read_trials(output), base)


def _trial(output: Path, config: SearchConfig, number: int) -> Trial:
    """What is known of a trial; one that nobody has proposed yet is proposed now."""
    known = {trial.number: trial for trial in read_trials(output)}
    if number not in known:
        settings = propose(config, number, list(known.values()))
        write_proposal(output, number, settings)
        known[number] = Trial(number, settings)
    return known[number]


def _conclude(output: Path, base: CompareConfig, splits: list[Split], number: int, trials: int) -> None:
    """Judge a trial whose trainings are complete, and write the summary so far."""
    folder = trial_folder(output, number)
    tables = [read_frames(unit_folder(folder, base.models[0], split) / "metrics.csv") for split in splits]
    frames = pd.concat(tables)
    write_result(output, number, float(frames["dice"][frames["true_area"] > 0].mean()))
    so_far = read_trials(output)
    write_summary(output, so_far, base)
    best, dice = best_of(so_far), next(trial.dice for trial in so_far if trial.number == number)
    say(f"trial {number} of {trials}: Dice {dice:.4f} (best {best.dice:.4f}, trial {best.number})")
