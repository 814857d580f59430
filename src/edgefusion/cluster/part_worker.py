"""One of many workers: a network that predicts one part of the frames after the other."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from edgefusion.cluster.part_files import Plan
from edgefusion.data.clip import Region, Spacing
from edgefusion.data.kaggle import encode_rle
from edgefusion.data.sources import open_clip
from edgefusion.errors import DataError, EdgeFusionError
from edgefusion.files import sha256_of_file
from edgefusion.inference.ahead import ahead
from edgefusion.inference.predict_clip import Crop
from edgefusion.inference.predictor import BATCH, Predictor, load
from edgefusion.inference.writers import Result, measures, output_path, write_results
from edgefusion.remote import UnreachableError, fetched, place

_THREADS = 4
"""Read and filter frames while the network is at work; more than its one core has use for, since storage is slow."""


@dataclass
class _Frame:
    """A frame on its way to the network; without a stack it does not go there."""

    row: dict[str, Any]
    image: NDArray[Any] | None = None
    stack: NDArray[np.float32] | None = None
    spacing: Spacing | None = None
    region: Region | None = None


class PartWorker:
    """Predicts parts of a plan, for Ray Data's ``map_batches``.

    Args:
        plan: What is to be done.
        bundle: Folder of the network, the same path on every machine.
        flip_averaging: See ``Predictor``.
        crop: See ``predict_files``.
    """

    def __init__(self, plan: Plan, bundle: Path, flip_averaging: bool, crop: Crop) -> None:
        self._plan, self._crop = plan, crop
        self._predictor = load(bundle, flip_averaging, threads=1)
        self._columns = part_columns(self._predictor)

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Do the parts whose numbers are ``batch["item"]``.

        Returns:
            The numbers, and for each part ``error``: why it could not be done, or nothing.
        """
        return {"item": batch["item"], "error": np.array([self._try(int(part)) for part in batch["item"]], object)}

    def _try(self, part: int) -> str:
        try:
            self.do(part)
        except (EdgeFusionError, OSError) as error:
            return str(error)
        return ""

    def do(self, part: int) -> None:
        """Predict one part. Its file comes last, so that a part that has it is complete.

        Raises:
            OSError: If the results cannot be written; what is wrong with a frame goes into its row instead.
            UnreachableError: If object storage cannot be reached.
        """
        rows: list[dict[str, Any]] = []
        frames = ahead(self._prepare, self._plan.inputs(part), 2 * BATCH, _THREADS)
        while batch := list(islice(frames, BATCH)):
            results = self._results([frame for frame in batch if frame.stack is not None])
            for name in self._plan.formats:
                write_results(name, self._plan.pictures(part), results, self._predictor.bundle)
            found = {result.name: result for result in results}
            rows += [self._row(part, frame, found.get(frame.row["name"])) for frame in batch]
        self._plan.write(part, rows, self._columns)

    def _prepare(self, given: dict[str, Any]) -> _Frame:
        spacing = None if given["spacing_row_mm"] is None else (given["spacing_row_mm"], given["spacing_col_mm"])
        row = {
            "input": given["input"],
            "name": given["name"],
            "status": "done",
            "reason": "",
            "formats": " ".join(sorted(self._plan.formats)),
            "spacing_mm": "×".join(map(str, spacing or ())),
            "input_sha256": "",
            "made_by": self._plan.made_by,
        }
        try:
            path = fetched(place(given["input"]))
            row["input_sha256"] = sha256_of_file(path)
            clip = open_clip(path)
            if clip.count != 1 or clip.rate is not None:
                raise DataError(f"{path} is a clip, not a still picture.", "Predict it without --ray.")
            image = next(clip.read())
            region = clip.region if self._crop == "auto" else self._crop if isinstance(self._crop, Region) else None
            stack = self._predictor.prepare(image, region, threads=1)
            return _Frame(row, image, stack, spacing or clip.spacing, region)
        except UnreachableError:
            raise  # says nothing about this frame
        except (EdgeFusionError, OSError) as error:
            return _Frame({**row, "status": "failed", "reason": str(error), "formats": ""})

    def _results(self, frames: list[_Frame]) -> list[Result]:
        if not frames:
            return []
        maps = self._predictor.infer(np.stack([np.asarray(frame.stack) for frame in frames]))
        results = []
        for frame, one in zip(frames, maps, strict=True):
            image = np.asarray(frame.image)
            prediction = self._predictor.finish(one, image.shape, frame.spacing, frame.region)
            results.append(Result(frame.row["name"], image, prediction, frame.spacing, frame.region))
        return results

    def _row(self, part: int, frame: _Frame, result: Result | None) -> dict[str, Any]:
        if result is None:
            return frame.row
        prediction, pictures = result.prediction, self._plan.pictures(part)
        row = {**frame.row, **measures(prediction)}
        row["height"], row["width"] = prediction.mask.shape
        for value, label in enumerate(prediction.labels, start=1):
            row[f"rle_{label}"] = encode_rle(prediction.mask == value)
        if "png" in self._plan.formats:
            row["mask"] = output_path("png", pictures, result.name).relative_to(self._plan.folder).as_posix()
        return row


_TEXTS = ("input", "name", "status", "reason", "formats", "spacing_mm", "input_sha256", "made_by")


def part_columns(predictor: Predictor) -> pa.Schema:
    """Columns of every part file, with their types, also where a part has no value of a column.

    Those of ``predict-report.csv``: ``input``, ``name``, ``status`` ("done" or "failed"), ``reason``, ``formats``,
    ``spacing_mm``, ``input_sha256``, ``made_by`` and the measures; then ``height`` and ``width`` of the frame, for
    each label ``rle_LABEL`` (its mask as Kaggle's run lengths, see ``decode_rle``), and ``mask`` (its PNG, relative to
    the folder).
    """
    recipe = predictor.bundle.recipe
    # What a frame is measured by is what an empty one with a known spacing is measured by.
    blank = predictor.predict(np.zeros((recipe.height, recipe.width), np.uint8), (1.0, 1.0))
    numbers = [(name, pa.from_numpy_dtype(np.asarray(value).dtype)) for name, value in measures(blank).items()]
    sizes = [("height", pa.int32()), ("width", pa.int32())]
    masks = [(f"rle_{label}", pa.string()) for label in blank.labels]
    return pa.schema([*((name, pa.string()) for name in _TEXTS), *numbers, *sizes, *masks, ("mask", pa.string())])
