"""What became of each frame predicted into a folder: a table for people, and the memory of later calls."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from edgefusion.data.bounds import check_table
from edgefusion.data.sources import stem_of
from edgefusion.errors import DataError
from edgefusion.files import write_text
from edgefusion.inference.writers import output_path

FILE = "predict-report.csv"
"""Name of the table in the output folder."""

_COLUMNS = ("input", "name", "status", "reason", "formats", "spacing_mm", "input_sha256", "made_by")

_ORIGIN = ("input_sha256", "spacing_mm", "made_by")
"""Where these are the same, so are the results."""


class Record:
    """The table ``predict-report.csv`` of an output folder, one row an input file.

    Its columns: ``input`` (absolute path), ``name`` (how the frame's files begin), ``status`` ("done" or "failed"),
    ``reason`` (of the failure), ``formats`` (written, separated by blanks), ``spacing_mm``, ``input_sha256``,
    ``made_by`` (a hash of the network and its settings), then the measures, where a label has none an empty field.

    Args:
        folder: The output folder; a table that is already there is continued.

    Raises:
        DataError: If the table that is already there cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE
        self._rows: dict[str, dict[str, Any]] = {}
        if self.path.is_file():
            try:
                text = self.path.read_text(encoding="utf-8")
                check_table(self.path, text)
                table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False).fillna("")
                rows = [_row(values) for values in table.to_dict("records")]
            except (ValueError, KeyError) as error:
                raise DataError(f"{self.path} cannot be read ({error}).", "Move it away to start anew.") from error
            self._rows = {row["input"]: row for row in rows}

    def names_for(self, inputs: Iterable[str]) -> dict[str, str]:
        """A name for each input: the one it had before, else its file's stem, or that with a number if it is taken."""
        names = {key: str(row["name"]) for key, row in self._rows.items()}
        # Some file systems take "A" and "a" for the same.
        taken = {name.casefold() for name in names.values()}
        for key in inputs:
            if key not in names:
                stem = name = stem_of(Path(key))
                number = 1
                while name.casefold() in taken:
                    number += 1
                    name = f"{stem}-{number}"
                names[key] = name
                taken.add(name.casefold())
        return names

    def has(self, name: str) -> bool:
        """Whether the files of some input begin so."""
        return any(row["name"] == name for row in self._rows.values())

    def kept(
        self, facts: Mapping[str, Any], formats: Sequence[str], paths: Iterable[Path] | None = None
    ) -> dict[str, Any] | None:
        """The row of an input whose results in ``formats`` are there and would come out the same again, else None.

        They are in ``paths``, by default where ``output_path`` says.
        """
        row = self._rows.get(facts["input"])
        if row is None or not _same_origin(row, facts) or not {*formats} <= {*row["formats"].split()}:
            return None
        paths = paths or [output_path(name, self.folder, row["name"]) for name in formats]
        return row if all(path.exists() for path in paths) else None

    def add(self, summaries: Iterable[Mapping[str, Any]], formats: Sequence[str]) -> None:
        """Note frames whose results are written, or that failed, and save the table."""
        for summary in summaries:
            row = {**dict.fromkeys(_COLUMNS, ""), **summary}
            if summary["status"] == "done":
                before = self._rows.get(summary["input"])
                kept = before["formats"].split() if before and _same_origin(before, summary) else []
                row["formats"] = " ".join(sorted({*kept, *formats}))
            self._rows[summary["input"]] = row
        # As objects: otherwise whole numbers beside empty fields would become floating point.
        table = pd.DataFrame(list(self._rows.values()), dtype=object)
        write_text(self.path, table.to_csv(index=False, lineterminator="\n"))

    def names_in(self, format_: str, made_by: str) -> set[str]:
        """Names of all frames that ``made_by`` wrote in a format."""
        rows = self._rows.values()
        return {row["name"] for row in rows if row["made_by"] == made_by and format_ in row["formats"].split()}


def _same_origin(row: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    return row["status"] == "done" and all(row[key] == facts[key] for key in _ORIGIN)


def _row(texts: Mapping[Any, str]) -> dict[str, Any]:
    """A row as it was added: measures are numbers again, and those of other labels are not there."""
    measures = {
        key: int(text) if text.isdecimal() else float(text)
        for key, text in texts.items()
        if key not in _COLUMNS and text
    }
    return {**{key: texts[key] for key in _COLUMNS}, **measures}
