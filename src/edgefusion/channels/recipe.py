"""From a frame to the stack of channels that a network sees, and the cache of such stacks."""

from __future__ import annotations

import difflib
import hashlib
import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefusion.arrays import as_unit
from edgefusion.channels.bands import cores
from edgefusion.channels.diffusion import METHODS, despeckle
from edgefusion.channels.edges import DENOISER, edge_map
from edgefusion.config import CHANNELS, ChannelRecipe
from edgefusion.errors import StorageError, UsageError
from edgefusion.files import atomic_path, remove_leftovers
from edgefusion.progress import say, track
from edgefusion.threads import thread_pool

if TYPE_CHECKING:
    from edgefusion.data.study import Study

_MAGIC = b"edgefusion stack 5\n"
"""First line of a cache entry. Raise the number whenever a filter's output changes: older entries are then rebuilt."""

_OTHER_VERSION = re.compile(rb"edgefusion stack (?!5\n)\d+\n")

_STORED = np.dtype("<f2")
"""What the numbers of an entry are; their shape is the recipe's. NumPy's own format parses a Python literal, which in
several threads at once can fail (python/cpython#106905)."""

_COLUMNS = 580
"""Width of the frame whose diffusion time a recipe gives. Time counts px²: the same anatomy over half as many columns
needs a quarter of it."""


def check_channels(names: Sequence[str]) -> None:
    """Raise a UsageError, with the nearest known name, for a channel that does not exist."""
    if not names:
        raise UsageError("The channel recipe is empty.", f"Name at least one of: {', '.join(CHANNELS)}.")
    for name in names:
        if name not in CHANNELS:
            near = difflib.get_close_matches(name, CHANNELS, n=1, cutoff=0.0)[0]
            raise UsageError(f"Unknown channel '{name}'.", f"Did you mean '{near}'? Known: {', '.join(CHANNELS)}.")


def build_stack(image: NDArray[Any], recipe: ChannelRecipe, *, threads: int | None = None) -> NDArray[np.float32]:
    """Filter one frame into the channels of ``recipe``.

    Args:
        image: H×W or H×W×3, uint8, uint16, or float in [0, 1].
        recipe: Names of the channels, size of the stack, and whether filters run before or after resizing.
        threads: Threads for this one frame; None takes all cores.

    Returns:
        C×height×width float32 in [0, 1], in the order of ``recipe.channels``, C-contiguous.

    Raises:
        UsageError: For an unknown channel, or a frame that ``as_unit`` refuses.
    """
    check_channels(recipe.channels)
    size = (recipe.width, recipe.height)
    frame = as_unit(image)
    if recipe.resolution == "network":
        frame = _resized(frame, size)
    time = diffusion_time(recipe, frame.shape[1])
    done: dict[str, NDArray[np.float32]] = {"raw": frame}

    def channel(name: str) -> NDArray[np.float32]:
        if name not in done:
            if name in METHODS:
                done[name] = despeckle(frame, name, time=time, threads=threads)
            else:
                method = "fused" if name == "edges" else name
                denoiser = DENOISER[method]
                done[name] = edge_map(frame, channel(denoiser) if denoiser else None, method, threads=threads)
        return done[name]

    stack = np.empty((len(recipe.channels), recipe.height, recipe.width), dtype=np.float32)
    for plane, name in zip(stack, recipe.channels, strict=True):
        plane[...] = _resized(channel(name), size)
    return stack


def diffusion_time(recipe: ChannelRecipe, columns: int) -> float:
    """How long a frame of so many columns is diffused, in its own px²."""
    return recipe.time * (columns / _COLUMNS) ** 2


def _resized(plane: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    if plane.shape == size[::-1]:
        return plane
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), dtype=np.float32)


def cached_stacks(
    study: Study, frame_ids: Sequence[str], recipe: ChannelRecipe, cache_dir: Path
) -> NDArray[np.float16]:
    """Stacks of many frames, from the cache where they are in it, else filtered and kept.

    Frames run in parallel over threads. An entry is ``cache_dir/<recipe.key()>/<frame sha256>``: a line with the
    format's version, a line with the SHA-256 of the rest, then the array in NumPy's .npy format. It is written
    atomically, so that several processes may share a folder. A damaged entry is rebuilt with a warning. Where entries
    cannot be written (a full disk, a study that is read-only), that is said once, and the frames are not kept.

    Args:
        study: Where the frames are.
        frame_ids: N ids, in the order of the result.
        recipe: What to compute.
        cache_dir: Folder of the cache; made when absent.

    Returns:
        N×C×height×width float16 in [0, 1].

    Raises:
        UsageError: For an unknown channel or a frame that is not in the study.
        DataError: If a frame that is not in the cache cannot be read from the study.
    """
    check_channels(recipe.channels)
    hashes = dict(zip(study.frames["frame_id"], study.frames["sha256"], strict=True))
    missing = [frame_id for frame_id in frame_ids if frame_id not in hashes]
    if missing:
        raise UsageError(f"Frame '{missing[0]}' is not in study {study.path}.")
    shape = (len(recipe.channels), recipe.height, recipe.width)
    folder = Path(cache_dir) / recipe.key()

    cannot_write: list[StorageError] = []

    def stack_of(frame_id: str) -> NDArray[np.float16]:
        entry = folder / str(hashes[frame_id])
        stack = _read_entry(entry, shape)
        if stack is None:
            stack = build_stack(study.image(frame_id), recipe, threads=1).astype(np.float16)
            if not cannot_write:
                try:
                    _write_entry(entry, stack)
                except StorageError as error:
                    cannot_write.append(error)
        return stack

    remove_leftovers(folder)
    stacks = np.empty((len(frame_ids), *shape), dtype=np.float16)
    with thread_pool(cores()) as pool:
        results = pool.map(stack_of, frame_ids)
        for index, stack in enumerate(track(results, "Filtering frames", total=len(frame_ids))):
            stacks[index] = stack
    if cannot_write:
        say(f"{cannot_write[0]} This run goes on; its filtered frames are not kept.")
    return stacks


def _write_entry(path: Path, stack: NDArray[np.float16]) -> None:
    content = stack.astype(_STORED).tobytes()
    with atomic_path(path, synced=False) as temporary:
        temporary.write_bytes(_head(content) + content)


def _head(body: bytes) -> bytes:
    return _MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n"


def _read_entry(path: Path, shape: tuple[int, int, int]) -> NDArray[np.float16] | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        warnings.warn(f"Cache entry {path} cannot be read ({error.strerror}).", RuntimeWarning, stacklevel=2)
        return None
    size = len(_head(b""))
    if content[:size] == _head(content[size:]):
        values = np.frombuffer(content, _STORED, offset=size)
        if values.size == math.prod(shape):
            return values.astype(np.float16).reshape(shape)
    if not _OTHER_VERSION.match(content):
        warnings.warn(f"Cache entry {path} is damaged; it is built again.", RuntimeWarning, stacklevel=2)
    return None
