"""What fuzzing found: each file once crashed its reader, hung it, or was answered with an error of some library's."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CORPUS = Path(__file__).with_name("corpus")
FILES = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_it_is_read_or_refused_with_words(path: Path, readers: dict[str, Any], folder_of: Callable[..., Path]) -> None:
    reader = readers[path.parent.name]
    started = time.process_time()
    message = reader.feed(folder_of(reader), path.read_bytes())
    assert time.process_time() - started < 5
    assert message == "" or message.endswith(".")


def test_no_file_is_large_and_each_has_a_reader(readers: dict[str, Any]) -> None:
    assert FILES
    assert all(path.stat().st_size < 20_000 for path in FILES)
    assert {path.parent.name for path in FILES} <= readers.keys()
