"""The folder of a prediction of very many frames: what is to be done, and which parts of it are done.

The first call fixes the list of frames in ``inputs.parquet`` and what is done to them in ``run.json``. Part k are the
frames from ``k * per_part`` on; its results are ``part-K.parquet``, which appears in one step once all of them are
there. So a part that has its file is done and a part that has none is not, whoever was killed in between, and a part
that two workers happened to do is there once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from edgefusion.errors import DataError, UsageError
from edgefusion.files import atomic_path, write_json
from edgefusion.inference.inputs import FrameFile

INPUTS = "inputs.parquet"
RUN = "run.json"

PER_PART = 512
"""Frames of a part: a multiple of the network's batch, so that batches are those of plain ``predict``."""

_FORMAT = 1

_INPUT_COLUMNS = pa.schema(
    [("input", pa.string()), ("name", pa.string()), ("spacing_row_mm", pa.float64()), ("spacing_col_mm", pa.float64())]
)


@dataclass(frozen=True)
class Plan:
    """What a folder of parts holds once it is complete."""

    folder: Path
    """Where; the same path on every machine."""
    made_by: str
    """A hash of the network and its settings."""
    formats: tuple[str, ...]
    """Of ``writers.STILL_FORMATS``: pictures written beside the parts."""
    frames: int
    """How many there are."""
    per_part: int
    """Frames of a part; the last one may have fewer."""
    inputs_sha256: str
    """Of the list of frames."""

    @property
    def parts(self) -> int:
        """How many there are."""
        return -(-self.frames // self.per_part)

    def path(self, part: int) -> Path:
        """The file of a part's results."""
        return self.folder / f"part-{part:06}.parquet"

    def pictures(self, part: int) -> Path:
        """The folder of a part's pictures."""
        return self.folder / "frames" / f"{part:06}"

    def size(self, part: int) -> int:
        """Frames of a part."""
        return min(self.per_part, self.frames - part * self.per_part)

    def inputs(self, part: int) -> list[dict[str, Any]]:
        """A part's frames: ``input`` (path or address), ``name``, ``spacing_row_mm`` and ``spacing_col_mm`` or None."""
        with pq.ParquetFile(self.folder / INPUTS) as file:
            return list(file.read_row_group(part).to_pylist())

    def write(self, part: int, rows: Sequence[Mapping[str, Any]], columns: pa.Schema) -> None:
        """Write a part's results, a row a frame."""
        with atomic_path(self.path(part)) as temporary:
            pq.write_table(pa.Table.from_pylist(list(rows), columns), temporary, compression="zstd")

    def pending(self) -> list[int]:
        """The parts that are still to be done."""
        return [part for part in range(self.parts) if not self._is_done(part)]

    def count(self) -> dict[str, int]:
        """How many frames are ``done`` and how many ``failed``."""
        table = pa.dataset.dataset([str(self.path(part)) for part in range(self.parts)], format="parquet")
        failed = table.count_rows(filter=pa.dataset.field("status") == "failed")
        return {"done": self.frames - failed, "failed": failed}

    def _is_done(self, part: int) -> bool:
        try:
            return bool(pq.read_metadata(self.path(part)).num_rows == self.size(part))
        except FileNotFoundError:
            return False
        except (OSError, pa.ArrowInvalid):  # damaged: it is done again
            return False


def begin(
    folder: Path,
    frames: Sequence[FrameFile],
    names: Mapping[str, str],
    made_by: str,
    formats: Sequence[str],
    per_part: int = PER_PART,
) -> Plan:
    """Fix what ``folder`` will hold, or go on with what an earlier call fixed.

    Args:
        folder: The output folder.
        frames: Every frame, in the order of the parts.
        names: How the files of each begin, by its path.
        made_by: A hash of the network and its settings.
        formats: Pictures to write.
        per_part: Frames of a part.

    Raises:
        UsageError: If the folder holds the parts of other frames, of another network or in other formats.
        DataError: If the note of the earlier call cannot be read.
    """
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(f"{frame.path}\n{names[str(frame.path)]}\n{frame.spacing}\n".encode())
    plan = Plan(folder, made_by, tuple(formats), len(frames), per_part, digest.hexdigest())
    facts = {key: value for key, value in asdict(plan).items() if key != "folder"}
    facts = {"format": _FORMAT, **facts, "formats": list(formats)}
    note = folder / RUN
    if note.is_file():
        _check_same(note, facts)
        return plan
    # A group of rows a part, so that a worker reads no more than its own.
    with atomic_path(folder / INPUTS) as temporary, pq.ParquetWriter(temporary, _INPUT_COLUMNS) as writer:
        for start in range(0, len(frames), per_part):
            rows = [_input(frame, names) for frame in frames[start : start + per_part]]
            writer.write_table(pa.Table.from_pylist(rows, _INPUT_COLUMNS))
    write_json(note, facts)
    return plan


def _input(frame: FrameFile, names: Mapping[str, str]) -> dict[str, Any]:
    height, width = frame.spacing or (None, None)
    return {
        "input": str(frame.path),
        "name": names[str(frame.path)],
        "spacing_row_mm": height,
        "spacing_col_mm": width,
    }


_DIFFERENCES = {
    "made_by": "another network, or of other settings",
    "formats": "other formats",
    "frames": "other frames",
    "inputs_sha256": "other frames",
    "per_part": "parts of another size",
    "format": "another version of this program",
}


def _check_same(note: Path, facts: Mapping[str, Any]) -> None:
    try:
        before = json.loads(note.read_text(encoding="utf-8"))
        differs = [what for key, what in _DIFFERENCES.items() if before[key] != facts[key]]
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{note} cannot be read ({error}).", "Choose another output folder.") from error
    if differs:
        raise UsageError(
            f"{note.parent} holds predictions of {differs[0]}.",
            "Choose another output folder; several can be read as one table.",
        )
