"""Errors that say what was wrong with which file, and what to do next."""

from __future__ import annotations


class EdgeFusionError(Exception):
    """An expected failure: the command line prints its message in one line and exits with ``exit_code``.

    Args:
        what: What was wrong, naming the file or value.
        remedy: What the user can do next; appended to the message.
    """

    exit_code = 1

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(f"{what} {remedy}".strip())


class UsageError(EdgeFusionError):
    """The call itself was wrong: an unknown name, a missing folder, an impossible option."""

    exit_code = 2


class DataError(EdgeFusionError):
    """A file exists but cannot be used: corrupt, empty, of another size than its mask."""


class BundleError(EdgeFusionError):
    """A model bundle is incomplete, altered, or newer than this program."""


class StorageError(EdgeFusionError, OSError):
    """A file or folder cannot be written: the disk is full, read-only, or somebody else's."""
