"""Bounds on files of text that strangers may have written: what a small one may ask for before it is believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from edgefusion.errors import DataError

MAX_YAML = 256 * 1024
"""Bytes of a YAML file, which is parsed at about 100 KB a second."""

MAX_JSON = 64 * 1024 * 1024
"""Bytes of a JSON file, which takes up to 30 times as much memory."""

MAX_COLUMNS = 4096
"""Columns of a table."""

_FREE_CELLS = 1_000_000


def read_yaml(path: Path) -> Any:
    """The value in a YAML file that has no aliases, of which a few lines can stand for a value of any size.

    Raises:
        DataError: If the file is too large, has an alias, or is not YAML.
    """
    try:
        if path.stat().st_size > MAX_YAML:
            raise DataError(f"{path} has more than {MAX_YAML} bytes.", "Such a file is a page long; make it anew.")
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Plain)
    except DataError:
        raise
    except RecursionError:
        raise DataError(f"{path} is nested too deeply.", "Make it anew.") from None
    # Numbers, dates and truth values that are none make PyYAML stumble in nearly every way.
    except Exception as error:
        raise DataError(f"{path} is not valid YAML ({_short(error)}).", "Make it anew.") from error


def read_json(path: Path, kind: str) -> Any:
    """The value in a JSON file, of the kind that ``kind`` names in messages.

    Raises:
        DataError: If the file is too large, or is not JSON.
    """
    try:
        if path.stat().st_size > MAX_JSON:
            raise DataError(f"{path} has more than {MAX_JSON} bytes.", "Make it anew, or divide it.")
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise DataError(f"{path} is nested too deeply.", "Make it anew.") from None
    except (ValueError, OSError) as error:
        raise DataError(f"{path} is not {kind} ({_short(error)}).", "Make it anew.") from error


def check_table(path: Path, text: str) -> None:
    """Refuse a table (CSV) of many columns, or whose short rows would be filled up to far more cells than it has.

    Raises:
        DataError: If it is one.
    """
    columns = text.partition("\n")[0].count(",") + 1
    # A whole table has a comma or an end of line for each of its cells.
    if columns > MAX_COLUMNS or columns * text.count("\n") > max(len(text), _FREE_CELLS):
        raise DataError(f"{path} has {columns} columns, which most of its rows do not fill.", "Make it anew.")


class _Plain(yaml.SafeLoader):
    """YAML without aliases."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """As the base class does."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias")
        return super().compose_node(parent, index)


def _short(error: Exception) -> str:
    words = " ".join(str(error).split())
    return words if len(words) <= 200 else words[:200] + "..."
