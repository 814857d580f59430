"""The Kaggle competition "Ultrasound Nerve Segmentation" (2016): names, run-length masks, submissions.

Run lengths are pairs ``start length`` over the pixels counted from 1, column by column, from top to bottom and then
from left to right; an empty text is an empty mask.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefusion.data.bounds import check_table
from edgefusion.errors import DataError
from edgefusion.files import write_text

FRAME_SHAPE = (420, 580)
"""Rows and columns of the competition's frames, and so of its run-length masks."""

FRAME_NAME = re.compile(r"(\d+)_(\d+)")
"""Stem of a training frame's file: patient, underscore, number."""

MASK_TABLE = "train_masks.csv"
"""The competition's table of run-length masks: ``subject,img,pixels``."""


def encode_rle(mask: NDArray[Any]) -> str:
    """Run lengths of the non-zero pixels of ``mask`` (H×W, any type); empty for an empty mask."""
    flat = np.ravel(np.asarray(mask) != 0, order="F")
    if not flat.any():
        return ""
    # A run starts or ends wherever a pixel differs from the one before; outside the picture there is nothing.
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate(([0] if flat[0] else [], changes, [flat.size] if flat[-1] else [])).astype(np.int64)
    runs = np.stack([edges[::2] + 1, edges[1::2] - edges[::2]], axis=1)
    return " ".join(map(str, runs.ravel().tolist()))


def decode_rle(text: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The mask that run lengths describe.

    Args:
        text: Pairs ``start length``, separated by blanks; empty for an empty mask.
        shape: Height and width of the mask.

    Returns:
        H×W uint8, 1 inside the runs and 0 elsewhere.

    Raises:
        DataError: If the text is not pairs of whole numbers, or the runs overlap, are not in order, or leave the mask.
    """
    height, width = shape
    columns = np.zeros((width, height), dtype=np.uint8)
    starts, lengths = _runs(text)
    if starts.size:
        ends = starts + lengths
        if starts[0] < 0 or lengths.min() < 1 or (starts[1:] < ends[:-1]).any():
            raise DataError(
                "Run lengths must be positive, count from 1, rise, and not overlap.", f"Got {_short(text)}."
            )
        if ends[-1] > columns.size:
            raise DataError(f"Run lengths reach pixel {ends[-1]}, but a {height}×{width} mask has {columns.size}.")
        before = np.cumsum(lengths) - lengths
        columns.reshape(-1)[np.repeat(starts - before, lengths) + np.arange(lengths.sum())] = 1
    # OpenCV's transposition is several times as fast as numpy's.
    return np.asarray(cv2.transpose(columns), dtype=np.uint8)


def _runs(text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts counted from 0, and lengths."""
    words = text.split()
    # int() alone would also take "+5" and "1_000".
    if len(words) % 2 or not all(word.isascii() and word.isdigit() and len(word) < 12 for word in words):
        raise DataError("Run lengths are pairs of whole numbers.", f"Got {_short(text)}.")
    numbers = np.array(words, dtype=np.int64) if words else np.zeros(0, dtype=np.int64)
    return numbers[::2] - 1, numbers[1::2]


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")


def read_mask_table(path: Path | str) -> dict[str, str]:
    """Read ``train_masks.csv``: run lengths by frame name ("patient_number"), an empty text where there is no nerve.

    Raises:
        DataError: If the file is not such a table.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        check_table(path, text)
        rows = list(csv.DictReader(io.StringIO(text)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    table: dict[str, str] = {}
    for line, row in enumerate(rows, start=2):
        subject, image, pixels = (row.get(column) for column in ("subject", "img", "pixels"))
        if subject is None or image is None or pixels is None:
            raise DataError(f"{path}, line {line}, lacks one of subject, img, pixels.")
        name = f"{subject.strip()}_{image.strip()}"
        if name in table:
            raise DataError(f"{path}, line {line}, lists frame {name} a second time.")
        table[name] = pixels.strip()
    return table


def write_submission(path: Path | str, masks: Iterable[tuple[str, NDArray[Any]]]) -> None:
    """Write the competition's answer: header ``img,pixels``, one line a frame.

    Args:
        path: The CSV file to write.
        masks: Image name and mask (H×W, non-zero is nerve) of every frame, at the original size.
    """
    lines = ["img,pixels", *(f"{name},{encode_rle(mask)}" for name, mask in masks)]
    write_text(Path(path), "\n".join(lines) + "\n")
