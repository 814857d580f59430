"""Train one network on the patients of one split, and save it as a bundle."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader

from edgefusion.bundle import Bundle
from edgefusion.channels.recipe import cached_stacks
from edgefusion.config import ChannelRecipe, SplitConfig, TrainConfig
from edgefusion.data.splits import Split, make_splits
from edgefusion.data.study import Study
from edgefusion.errors import DataError, UsageError
from edgefusion.evaluation.fit_drift import fit_drift
from edgefusion.evaluation.memory import COMPANION, hash_frames, remember
from edgefusion.locking import sole_use
from edgefusion.models.edgefusion_unet import EdgeFusionUNet
from edgefusion.models.zoo import build_model, check_name, check_size
from edgefusion.training.checkpoints import LAST, CheckpointFiles, latest_whole
from edgefusion.training.dataset import EpochBatches, FrameSet, SharedFrames, load_frames
from edgefusion.training.epoch_log import EpochLog
from edgefusion.training.launch import Meeting, launch
from edgefusion.training.precision import choose_precision
from edgefusion.training.presence_head import fit_presence_head
from edgefusion.training.ranks import from_first, is_joint, joined, rank, ranks, share, wait_for_all
from edgefusion.training.start import fitting_arguments, load_start, take_over, take_weights
from edgefusion.training.task import SegmentationTask
from edgefusion.training.whole_batch import normalised_over_ranks


def train(
    study: Study | Path | str,
    model: str,
    output: Path | str,
    config: TrainConfig | None = None,
    recipe: ChannelRecipe | None = None,
    split: Split | None = None,
    resume: bool = False,
    title: str = "",
    network: dict[str, Any] | None = None,
    start: Path | str | None = None,
    devices: int = 1,
    nodes: int = 1,
) -> Bundle:
    """Train a network and save it.

    The last epoch's weights are kept: the one-cycle schedule ends there, and nothing is then chosen on the
    validation patients. Only with ``config.patience`` the epoch with the best validation Dice is kept.

    Several processes, on one machine or several, share each batch and train what one would, but for rounding. They are
    started here or by torchrun; see ``docs/how-to/train-on-several-machines.md``.

    Args:
        study: A study, or its folder.
        model: Name of a network, see ``edgefusion info``.
        output: Folder of the bundle; also receives ``log.csv`` and ``checkpoints/``.
        config: How to train.
        recipe: What the network sees.
        split: Patients to train on and to validate on; by default a fifth of the patients is held out.
        resume: Go on from the last checkpoint in ``output``.
        title: Name of the run in progress lines.
        network: Arguments of EdgeFusion-UNet that differ from its defaults.
        start: Bundle of the same network whose weights training starts from: a folder, or a name that ships along.
        devices: Processes on this machine: a GPU each, or a share of the cores. Under torchrun, that decides.
        nodes: Machines, each with so many processes; this is called on every one of them.

    Returns:
        The bundle, as saved.

    Raises:
        UsageError: For an unknown network, for a ``start`` that does not fit (see ``start.load_start``), if
            ``output`` already holds a bundle and ``resume`` is off, if another process is at work there, or for more
            processes than frames a step.
        DataError: If the machines hold different studies.
        EdgeFusionError: If one of several processes ends early.
    """
    check_name(model)
    study = study if isinstance(study, Study) else Study.load(study)
    output, config, recipe = Path(output), config or TrainConfig(), recipe or ChannelRecipe()
    check_size(recipe.height, recipe.width)
    if (output / "bundle.yaml").is_file():
        if resume:
            return Bundle.load(output)
        raise UsageError(f"{output} already holds a bundle.", "Choose another folder, or --resume.")
    split = split or make_splits(study, SplitConfig(folds=1))[0]
    job = partial(_train, study, model, output, config, recipe, split, resume, title or model, network or {}, start)
    if min(devices, nodes) < 1:
        raise UsageError(f"{devices} processes on {nodes} machines cannot train.", "Give at least 1 of each.")
    if devices * nodes > 1 and not is_joint():
        meeting = Meeting.of(nodes)
        with sole_use(output) if meeting.node == 0 else nullcontext():
            launch(job, devices, meeting)
        return Bundle.load(output)
    with joined(), sole_use(output) if rank() == 0 else nullcontext():
        return job()


def _train(
    study: Study,
    model: str,
    output: Path,
    config: TrainConfig,
    recipe: ChannelRecipe,
    split: Split,
    resume: bool,
    title: str,
    network: dict[str, Any],
    start: Path | str | None,
) -> Bundle:
    """What each rank does; only the first writes anything."""
    before = None if start is None else load_start(start, model, recipe, study, split)
    training, validation = _load(study, split, recipe, config)
    # Before the training: a frame that cannot be read must not end it after hours.
    hashes = hash_frames(study, split.train_frames(study))
    torch.manual_seed(config.seed)
    arguments = {**fitting_arguments(model, recipe, training), **network}
    module = build_model(model, len(recipe.channels), len(study.labels), **arguments)
    started_from = [] if before is None else take_over(module, before)
    epochs = _fit(module, training, validation, config, output, resume, title)
    if config.negatives and arguments.get("presence_head") is False:
        del arguments["presence_head"]
        headless, module = module, build_model(model, len(recipe.channels), len(study.labels), **arguments)
        take_weights(module, headless)
        assert isinstance(module, EdgeFusionUNet)
        fit_presence_head(module, training, config)
    bundle = Bundle(
        model=module.eval(),
        model_name=model,
        recipe=recipe,
        labels=list(study.labels),
        model_args=arguments,
        study_name=study.name,
        study_sha256=study.sha256(),
        trained_on=list(split.train),
        started_from=started_from,
        terms=study.terms,
        metrics={"validation_dice_at_network_size": float(epochs["val_dice"].iloc[-1]), "epochs": len(epochs)},
    )
    if before is not None and COMPANION in before.companions:
        bundle.companions[COMPANION] = before.companions[COMPANION]
    remember(bundle, hashes)
    fit_drift(bundle, study)
    if rank() == 0:
        bundle.save(output)
    wait_for_all()
    return bundle


def _load(study: Study, split: Split, recipe: ChannelRecipe, config: TrainConfig) -> tuple[FrameSet, FrameSet]:
    """Frames to train on and to validate on, after each rank has filtered its share of them for all."""
    train_ids, validation_ids = split.train_frames(study), split.validation_frames(study)
    a_step = min(config.batch_size, len(train_ids))
    if ranks() > a_step:
        raise UsageError(f"{a_step} frames a step cannot be shared by {ranks()} processes.", "Start fewer.")
    if ranks() > 1:
        if study.sha256() != from_first(study.sha256()):
            raise DataError(f"{study.path} is not the study that the first machine has.", "Give all the same.")
        frame_ids = [*train_ids, *validation_ids]
        cached_stacks(study, frame_ids[share(len(frame_ids))], recipe, study.cache)
        wait_for_all()
    training, validation = (load_frames(study, ids, recipe, study.cache) for ids in (train_ids, validation_ids))
    return training, validation


def _fit(
    network: nn.Module,
    training: FrameSet,
    validation: FrameSet,
    config: TrainConfig,
    output: Path,
    resume: bool,
    title: str,
) -> pd.DataFrame:
    """Train ``network`` in place and return its log, one row an epoch."""
    apart = training.patients if config.distinct_patients else ()
    batches = EpochBatches(len(training), min(config.batch_size, len(training)), config.seed, apart)
    task = SegmentationTask(network, config, batches.batch_size)
    checkpoints = output / "checkpoints"
    log = EpochLog(output / "log.csv", title, config.epochs)
    written: dict[str, Any] = {"enable_version_counter": False, "save_on_train_epoch_end": True}
    keeper = ModelCheckpoint(checkpoints, filename="best", monitor="val_dice", mode="max", **written)
    # Not save_last of the same callback: that is written only when the best one is.
    last = ModelCheckpoint(checkpoints, filename=Path(LAST).stem, **written)
    callbacks: list[Callback] = [log, keeper, last]
    if config.patience:
        callbacks.append(EarlyStopping("val_dice", mode="max", patience=config.patience))
    if config.average_decay:
        callbacks.append(EMAWeightAveraging(decay=config.average_decay))
    before = from_first(latest_whole(checkpoints) if resume and rank() == 0 else None)
    with normalised_over_ranks(network), warnings.catch_warnings(), _quiet_lightning():
        # Lightning advises loader processes; the frames are in memory, and the cores have other work.
        warnings.simplefilter("ignore")
        trainer = Trainer(
            max_epochs=config.epochs,
            precision=from_first(choose_precision(network, training, config)),
            callbacks=callbacks,
            plugins=[CheckpointFiles()],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            gradient_clip_val=5.0,
            use_distributed_sampler=False,
            **_processes(),
        )
        try:
            trainer.fit(
                task,
                DataLoader(
                    SharedFrames(training),
                    batch_sampler=batches if config.reshuffle else list(batches),
                    collate_fn=_as_is,
                ),
                DataLoader(SharedFrames(validation), batch_size=64, collate_fn=_as_is),
                ckpt_path=str(before) if before else None,
                weights_only=True,
            )
        except SystemExit as stopped:
            # Lightning turns Ctrl-C into an exit, and leaves the signal ignored.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt from stopped
    if config.patience:
        best = torch.load(keeper.best_model_path, weights_only=True)
        task.load_state_dict(best["state_dict"])
    return log.table()


def _processes() -> dict[str, Any]:
    """What Lightning is told about the ranks, which are at work already."""
    if ranks() == 1:
        return {}
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    return {"devices": here, "num_nodes": ranks() // here, "strategy": DDPStrategy()}


def _as_is(batch: Any) -> Any:
    return batch


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's own advice off the screen while a run is on."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
