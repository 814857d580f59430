"""Frames without a label, made of frames that show it: where every frame has a nerve, absence must be made.

Two ways, each with a counterpart that keeps the label and bears the same traces, so that the traces give nothing away:

- **Cut**: a part of the frame beside the label, enlarged to the frame's size. Counterpart: a part of the same size that
  holds all of the label.
- **Cover**: the label is covered with a patch of another frame, taken from beside that one's label and blended in.
  Counterpart: such a patch is put beside the label. Unlike a cut, a covered frame keeps its scale.

Cuts are random forms of what ``evaluation.presence_frames.cut_beside`` judges. Covering is copy-paste augmentation
(Ghiasi et al. 2021) turned round: it takes the label away.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

_CUTS = 0.5
_MARGIN = 0.05
_SMALLEST = 1 / 3


@dataclass(frozen=True)
class Box:
    """A part of a frame: the rows from ``top`` and the columns from ``left``."""

    top: int
    left: int
    height: int
    width: int

    def of(self, frame: Tensor) -> Tensor:
        """The view of this part of a C×H×W frame."""
        return frame[:, self.top : self.top + self.height, self.left : self.left + self.width]


def with_negatives(stack: Tensor, target: Tensor, share: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Turn a share of a batch into frames without any label, and as many into their counterparts with all labels.

    Every frame has its own lot. One without a label, or in which the label leaves no room, stays as it is.

    Args:
        stack: B×C×H×W channels in [0, 1].
        target: B×L×H×W share of each pixel that the label covers, in [0, 1].
        share: How many of the frames are to lose their labels, half of them by a cut; at most 0.5.
        generator: Source of chance.

    Returns:
        Both anew.
    """
    frames = list(torch.cat([stack, target], 1))
    boxes, emptied = [label_box(one) for one in target], torch.zeros(len(stack), dtype=torch.bool)
    made = frames.copy()
    for index, (lot, way) in enumerate(torch.rand(len(stack), 2, generator=generator).tolist()):
        box = boxes[index]
        if box is None or lot >= 2 * share:
            continue
        empty = lot < share
        if way < _CUTS:
            made[index] = _cut(frames[index], box, empty, generator)
        else:
            donor = (index + 1) % len(stack)
            made[index] = _cover(frames[index], box, frames[donor], boxes[donor], empty, generator)
        emptied[index] = empty and made[index] is not frames[index]
    done = torch.stack(made)
    # A label at the frame's border is covered but for a faint rest, because patches are blended in.
    return done[:, : stack.shape[1]], done[:, stack.shape[1] :] * ~emptied[:, None, None, None]


def label_box(target: Tensor) -> Box | None:
    """What holds every label of an L×H×W target, with 5 % of the height to each side, because outlines are uncertain.

    None where there is no label.
    """
    shown = target.amax(0) > 0
    rows, columns = shown.any(1).nonzero().flatten().tolist(), shown.any(0).nonzero().flatten().tolist()
    if not rows:
        return None
    height, width = shown.shape
    margin = round(_MARGIN * height)
    top, left = max(0, rows[0] - margin), max(0, columns[0] - margin)
    bottom, right = min(height, rows[-1] + 1 + margin), min(width, columns[-1] + 1 + margin)
    return Box(top, left, bottom - top, right - left)


def beside(box: Box, height: int, width: int, frame: tuple[int, int], generator: Generator) -> Box | None:
    """A part of the given size anywhere in a frame, but clear of ``box``; None if there is no room."""
    below, right = box.top + box.height, box.left + box.width
    rows, columns = frame[0] - height, frame[1] - width
    # Where its upper left corner may lie: first and last row, first and last column.
    sides = [
        (0, box.top - height, 0, columns),
        (below, rows, 0, columns),
        (0, rows, 0, box.left - width),
        (0, rows, right, columns),
    ]
    sides = [side for side in sides if side[1] >= side[0] and side[3] >= side[2]]
    if not sides:
        return None
    first, last, leftmost, rightmost = sides[_integer(0, len(sides) - 1, generator)]
    return Box(_integer(first, last, generator), _integer(leftmost, rightmost, generator), height, width)


def around(box: Box, height: int, width: int, frame: tuple[int, int], generator: Generator) -> Box:
    """A part of the given size, not smaller than ``box``, that holds all of it."""
    top = _integer(max(0, box.top + box.height - height), min(box.top, frame[0] - height), generator)
    left = _integer(max(0, box.left + box.width - width), min(box.left, frame[1] - width), generator)
    return Box(top, left, height, width)


def _cut(frame: Tensor, box: Box, empty: bool, generator: Generator) -> Tensor:
    """A part of a frame, enlarged. Its size is one that fits beside the label as well as around it."""
    height, width = frame.shape[1:]
    smallest = max(_SMALLEST, box.height / height, box.width / width)
    rows, columns = max(box.top, height - box.top - box.height), max(box.left, width - box.left - box.width)
    largest = max(rows / height, columns / width)
    if largest < smallest:
        return frame
    scale = smallest + (largest - smallest) * float(torch.rand(1, generator=generator))
    place = beside if empty else around
    part = place(box, round(scale * height), round(scale * width), (height, width), generator)
    return frame if part is None else _enlarged(part.of(frame), height, width)


def _cover(frame: Tensor, box: Box, donor: Tensor, other: Box | None, empty: bool, generator: Generator) -> Tensor:
    """A frame with a patch as large as its label's surroundings, on these or beside them."""
    size = (frame.shape[1], frame.shape[2])
    source = beside(other or Box(0, 0, 0, 0), box.height, box.width, size, generator)
    aside = beside(box, box.height, box.width, size, generator)
    # Both places are asked for in either case, so that what is covered does not depend on where there is room.
    if source is None or aside is None:
        return frame
    weight = _feathered(box.height, box.width, round(_MARGIN * size[0]))
    done = frame.clone()
    patched = (box if empty else aside).of(done)
    patched += weight.to(frame.device) * (source.of(donor) - patched)
    return done


def _enlarged(part: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(part[None], (height, width), mode="bilinear", align_corners=False)[0]


def _feathered(height: int, width: int, margin: int) -> Tensor:
    """Weights of a patch: 1 but for a margin, over which they fall off to the patch's border."""
    rows, columns = (torch.arange(1, size + 1) for size in (height, width))
    nearest = torch.minimum(torch.minimum(rows, rows.flip(0))[:, None], torch.minimum(columns, columns.flip(0)))
    return (nearest / (margin + 1)).clamp(max=1)


def _integer(first: int, last: int, generator: Generator) -> int:
    """One of the whole numbers from ``first`` to ``last``."""
    return int(torch.randint(first, last + 1, (1,), generator=generator))
