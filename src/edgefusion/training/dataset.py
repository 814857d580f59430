"""Frames of a study in memory, ready to be trained on: channel stacks and soft targets at the network's size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from edgefusion.channels.recipe import cached_stacks
from edgefusion.config import ChannelRecipe
from edgefusion.data.study import Study
from edgefusion.errors import DataError
from edgefusion.training.ranks import share


@dataclass(frozen=True)
class FrameSet(Dataset[tuple[Tensor, Tensor]]):
    """N frames. A batch is taken by one indexing operation: no loader process, no copying frame by frame."""

    stacks: Tensor
    """N×C×H×W float16 in [0, 1]."""
    targets: Tensor
    """N×L×H×W float16 in [0, 1]: the share of each pixel that the label covers."""
    patients: tuple[str, ...] = ()
    """N, the patient of each frame."""

    def __len__(self) -> int:
        return len(self.stacks)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One frame: C×H×W and L×H×W float32."""
        return self.stacks[index].float(), self.targets[index].float()

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A batch, as torch's loader asks for it: B×C×H×W and B×L×H×W float32."""
        return self.stacks[indices].float(), self.targets[indices].float()


@dataclass(frozen=True)
class SharedFrames(Dataset[tuple[Tensor, Tensor]]):
    """Frames of which each rank of a joint training gets its share of every batch."""

    frames: FrameSet

    def __len__(self) -> int:
        return len(self.frames)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """This rank's part of a batch that is the same on all ranks."""
        return self.frames.__getitems__(indices[share(len(indices))])


def load_frames(study: Study, frame_ids: Sequence[str], recipe: ChannelRecipe, cache: Path) -> FrameSet:
    """Read frames and masks of a study.

    Args:
        study: The study.
        frame_ids: Which of its labelled frames.
        recipe: Channels and size.
        cache: Folder of the cache of channel stacks.

    Raises:
        DataError: If a frame has no mask.
    """
    stacks = cached_stacks(study, frame_ids, recipe, cache)
    shape = (len(frame_ids), len(study.labels), recipe.height, recipe.width)
    targets = np.empty(shape, dtype=np.float16)
    for target, frame_id in zip(targets, frame_ids, strict=True):
        mask = study.mask(frame_id)
        if mask is None:
            raise DataError(f"Frame {frame_id} of {study.path} has no mask.", "Train on labelled frames only.")
        target[:] = soft_target(mask, len(study.labels), recipe.height, recipe.width)
    patient_of = study.frames.set_index("frame_id")["patient_id"]
    patients = tuple(patient_of.loc[list(frame_ids)].astype(str))
    return FrameSet(torch.from_numpy(stacks), torch.from_numpy(targets), patients)


def soft_target(mask: NDArray[np.uint8], labels: int, height: int, width: int) -> NDArray[np.float32]:
    """Shrink a label mask by area averaging, so that a border keeps its place within a pixel.

    Args:
        mask: H×W uint8 label mask.
        labels: Number of labels L.
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        L×height×width float32 in [0, 1].
    """
    planes = [(mask == label).astype(np.float32) for label in range(1, labels + 1)]
    return np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA) for plane in planes])


class EpochBatches(Sampler[list[int]]):
    """Batches in an order that depends on the seed and the epoch alone, so that a resumed run goes on alike.

    Args:
        frames: Number of frames N.
        batch_size: Frames a batch.
        seed: Seeds the order.
        apart: The group of each of the N frames, if those of one group shall be as far apart as can be; within a batch
            no group comes twice where there are enough groups left.
    """

    def __init__(self, frames: int, batch_size: int, seed: int, apart: Sequence[str] = ()) -> None:
        self.frames, self.batch_size, self.seed, self.apart = frames, batch_size, seed, apart
        self.epoch = 0

    @property
    def sampler(self) -> EpochBatches:
        """Where Lightning looks for whom to tell the epoch: never the batch sampler itself."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return max(1, self.frames // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        order = torch.randperm(self.frames, generator=generator).tolist()
        if self.apart:
            order = _dealt(order, self.apart)
        for batch in range(len(self)):
            # A last, smaller batch is left out: with its few frames it would count as much as a full one.
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size]


def _dealt(order: list[int], groups: Sequence[str]) -> list[int]:
    """The same frames, dealt out: each group's are spread evenly over the whole, at places that chance began."""
    members: dict[str, list[int]] = {}
    for frame in order:
        members.setdefault(groups[frame], []).append(frame)
    # A frame's place is its rank in its group, as a share of the group; groups come in the order of their first frame.
    places = [
        ((rank + (number + 0.5) / len(members)) / len(frames), frame)
        for number, frames in enumerate(members.values())
        for rank, frame in enumerate(frames)
    ]
    return [frame for _, frame in sorted(places)]
