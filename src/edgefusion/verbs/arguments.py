"""Reading the arguments of a verb."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgefusion.errors import UsageError


class Arguments:
    """The parser of one verb; a mistake in the arguments becomes one line."""

    def __init__(self, verb: Callable[[list[str]], None]) -> None:
        from jsonargparse import ArgumentParser, set_parsing_settings

        set_parsing_settings(docstring_parse_attribute_docstrings=True)
        name = verb.__name__.replace("_", "-")
        self.parser = ArgumentParser(prog=f"edgefusion {name}", description=verb.__doc__, exit_on_error=False)
        self.add = self.parser.add_argument

    def add_json(self) -> None:
        """Add --json, for verbs whose answer a program may read."""
        self.add("--json", action="store_true", help="print the answer as JSON on stdout")

    def read(self, arguments: list[str]) -> Any:
        """Parse, or raise a ``UsageError``."""
        from jsonargparse import ArgumentError

        try:
            return self.parser.instantiate(self.parser.parse_args(arguments))
        except ArgumentError as error:
            message = " ".join(str(error).split())
            raise UsageError(message, f"See: {self.parser.prog} --help") from None


def names(value: object) -> tuple[str, ...]:
    """Names separated by commas; a settings file may also give a list, or one number."""
    parts = value if isinstance(value, list | tuple) else ("" if value is None else str(value)).split(",")
    return tuple(str(part).strip() for part in parts if str(part).strip())


def integers(value: object) -> tuple[int, ...]:
    """Whole numbers separated by commas."""
    given = names(value)
    if not all(name.isdecimal() for name in given):
        raise UsageError(f"'{value}' is not a list of numbers.", "Separate whole numbers by commas, such as 0,1,2.")
    return tuple(int(name) for name in given)


def size(text: str) -> tuple[int, int]:
    """Rows x columns."""
    rows, _, columns = text.partition("x")
    if not (rows.isdecimal() and columns.isdecimal()):
        raise UsageError(f"'{text}' is not a size.", "Give rows x columns, such as 420x580.")
    return int(rows), int(columns)
