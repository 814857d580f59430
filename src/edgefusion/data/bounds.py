"""Bounds on files of text that strangers may have written: what a small one may ask for before it is believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from edgefusion.errors import DataError, EdgeFusionError
from edgefusion.remote import Place

MAX_YAML = 1024 * 1024
"""Bytes of a YAML file."""

MAX_JSON = 64 * 1024 * 1024
"""Bytes of a JSON file, which takes up to 30 times as much memory."""

MAX_COLUMNS = 4096
"""Columns of a table."""

_FREE_CELLS = 1_000_000
_MAX_SCALAR = 10_000
_MAX_DEPTH = 20

# The parser of libyaml is many times as fast, and does not recurse; both make nothing but plain values.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Place) -> Any:
    """The value in a YAML file that has no aliases, of which a few lines can stand for a value of any size.

    Raises:
        DataError: If the file is too large, has an alias, is nested too deeply, has a value too long, or is not YAML.
    """
    try:
        if (path.stat().st_size if isinstance(path, Path) else path.size()) > MAX_YAML:
            raise DataError(f"{path} has more than {MAX_YAML} bytes.", "Such a file is a page long; make it anew.")
        text = path.read_text(encoding="utf-8")
        depth = 0
        for event in yaml.parse(text, Loader=_LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise yaml.YAMLError("it has an alias")
            if depth > _MAX_DEPTH:
                raise RecursionError
            # A number of many digits, or of base 60, takes a time that grows with the square of its length.
            if isinstance(event, yaml.ScalarEvent) and len(event.value) > _MAX_SCALAR:
                raise yaml.YAMLError(f"a value of more than {_MAX_SCALAR} characters")
        return yaml.load(text, Loader=_LOADER)  # nosec B506
    except EdgeFusionError:
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


def check_table(path: Place, text: str) -> None:
    """Refuse a table (CSV) of many columns, or whose short rows would be filled up to far more cells than it has.

    Raises:
        DataError: If it is one.
    """
    columns = text.partition("\n")[0].count(",") + 1
    # A whole table has a comma or an end of line for each of its cells.
    if columns > MAX_COLUMNS or columns * text.count("\n") > max(len(text), _FREE_CELLS):
        raise DataError(f"{path} has {columns} columns, which most of its rows do not fill.", "Make it anew.")


def _short(error: Exception) -> str:
    words = " ".join(str(error).split())
    return words if len(words) <= 200 else words[:200] + "..."
