"""The fuzzer's tables, which are no package."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "fuzz"))

from readers import READERS, Reader

LIMIT_S = 5.0
"""Seconds of the processor that a reader may take for 1 MB."""


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Reader], Path]:
    """The folder of a reader, prepared once."""
    folders: dict[str, Path] = {}

    def folder(reader: Reader) -> Path:
        if reader.name not in folders:
            folders[reader.name] = tmp_path_factory.mktemp(reader.name)
            reader.prepare(folders[reader.name])
        return folders[reader.name]

    return folder


@pytest.fixture(scope="session")
def readers() -> dict[str, Reader]:
    return {reader.name: reader for reader in READERS}
