"""Predict very many frames on all machines of a Ray cluster, each once, whatever is killed in between."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefusion.bundles import find
from edgefusion.cluster.connection import connected
from edgefusion.errors import DataError, UsageError
from edgefusion.files import atomic_path
from edgefusion.inference.fingerprint import fingerprint
from edgefusion.inference.inputs import find_frames
from edgefusion.inference.predict_clip import Crop
from edgefusion.inference.predictor import load_bundle
from edgefusion.inference.record import Record
from edgefusion.locking import sole_use
from edgefusion.progress import say, track

if TYPE_CHECKING:
    from edgefusion.cluster.part_files import Plan

FORMATS = ("png", "overlay", "json")
"""Pictures that can be written beside the parts."""

_MODEL = "model"
_RETRIES = 5
"""How often a part is tried again whose worker died; a frame that kills every worker must not go round for ever."""


_GO_ON = "What is finished is kept; the same command does the rest."


def predict_on_cluster(
    inputs: Sequence[Path | str],
    output: Path | str,
    bundle: Path | str | None,
    address: str,
    formats: Sequence[str] = ("png",),
    flip_averaging: bool = False,
    *,
    strict: bool = False,
    crop: Crop = "auto",
    workers: int | None = None,
    per_part: int | None = None,
) -> dict[str, Any]:
    """Find the labels of a bundle in every still picture of ``inputs``, with many workers.

    The masks are those of ``predict_files``. ``output`` gets ``part-K.parquet`` (a row a frame, see
    ``part_worker.part_columns``), pictures in ``frames/K/``, and the network in ``model/``; it must be the same storage
    under the same path on every machine, and so must inputs that are files. The same call after a kill goes on: a part
    that has its file is not done again. A frame that cannot be used is a row with the reason.

    Args:
        inputs: See ``find_frames``. A clip is a row that says so.
        output: Folder of the results.
        bundle: See ``load_bundle``.
        address: Of the cluster: ``"auto"``, ``"HOST:PORT"``, or ``"local"`` for a cluster of this machine alone.
        formats: Of ``FORMATS``; there may be none.
        flip_averaging: See ``Predictor``.
        strict: Fail at the end if any frame could not be used.
        crop: See ``predict_files``.
        workers: Processes with a network each; by default one a core of the cluster.
        per_part: Frames of a part, by default ``part_files.PER_PART``.

    Returns:
        ``frames``, of these ``done`` and ``failed``; ``parts``, and of these ``kept`` from earlier calls.

    Raises:
        UsageError: If Ray is not installed or no cluster answers, an input or a format does not exist, or ``output``
            holds something else.
        DataError: If no frame could be used, or with ``strict`` not all of them; or a part could not be done.
    """
    output = Path(output).absolute()
    _check_formats(formats)
    with connected(address):
        from edgefusion.cluster.part_files import PER_PART, begin

        network = load_bundle(bundle)
        frames = find_frames(list(inputs), output)
        made_by = fingerprint(network, flip_averaging, *([] if crop == "auto" else [crop]))
        with sole_use(output):
            names = Record(output).names_for(str(frame.path) for frame in frames)
            plan = begin(output, frames, names, made_by, tuple(formats), per_part or PER_PART)
            del frames, names, network
            model = _keep(find(bundle), output / _MODEL)
            pending = plan.pending()
            kept = plan.parts - len(pending)
            if kept:
                say(f"{kept} of {plan.parts} parts are there already.")
            if pending:
                _run(plan, pending, (plan, model, flip_averaging, crop), workers)
            return _conclude(plan, kept, strict)


def _check_formats(formats: Sequence[str]) -> None:
    for name in formats:
        if name not in FORMATS:
            raise UsageError(f"With --ray there is no format '{name}'.", f"Choose from {', '.join(FORMATS)}, or none.")


def _keep(bundle: Path, folder: Path) -> Path:
    """Copy a bundle to where all workers can read it; its description comes last and says that it is whole."""
    if not (folder / "bundle.yaml").is_file():
        files = [path for path in bundle.iterdir() if path.is_file() and not path.name.startswith(".")]
        for path in sorted(files, key=lambda path: path.name == "bundle.yaml"):
            with atomic_path(folder / path.name) as temporary:
                shutil.copyfile(path, temporary)
    return folder


def _run(plan: Plan, pending: list[int], arguments: tuple[Any, ...], workers: int | None) -> None:
    import ray
    import ray.data
    from ray.exceptions import RayError

    from edgefusion.cluster.part_worker import PartWorker

    wanted = workers or int(ray.cluster_resources().get("CPU", 1))
    with warnings.catch_warnings():
        # Ray will rename these two one day, and has no other name for them yet.
        warnings.simplefilter("ignore", DeprecationWarning)
        parts = ray.data.from_items(pending, override_num_blocks=len(pending)).map_batches(
            PartWorker,
            fn_constructor_args=arguments,
            batch_size=1,
            num_cpus=1,
            compute=ray.data.ActorPoolStrategy(size=max(1, min(wanted, len(pending))), max_tasks_in_flight_per_actor=1),
            max_restarts=-1,
            max_task_retries=_RETRIES,
        )
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        for row in track(parts.iter_rows(), "Predicting parts", total=len(pending)):
            if row["error"]:
                raise DataError(f"Part {row['item']} could not be done: {row['error']}", _GO_ON)
    except RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(f"A worker died {_RETRIES + 1} times at the same part: {reason}", _GO_ON) from error


def _conclude(plan: Plan, kept: int, strict: bool) -> dict[str, Any]:
    if missing := plan.pending():
        raise DataError(
            f"{plan.path(missing[0])} is not there, although a worker wrote it.",
            "Give an output folder that is the same storage on every machine.",
        )
    counts = plan.count()
    summary = {"frames": plan.frames, **counts, "parts": plan.parts, "kept": kept}
    if counts["failed"] and (strict or not counts["done"]):
        raise DataError(
            f"{counts['failed']} of {plan.frames} frames could not be used.",
            f"The reasons are in the column 'reason' of {plan.folder}/part-*.parquet.",
        )
    say(f"{counts['done']} frames predicted, {counts['failed']} failed: {plan.folder}")
    return summary
