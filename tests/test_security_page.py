"""docs/security.md names a test for each guard: they are there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "security.md"


def test_every_test_that_the_page_names_is_there() -> None:
    sources = {path: path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py")}
    text = PAGE.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| what could")]
    assert len(rows) > 20
    for row in rows:
        file = ""
        names = re.findall(r"`([^`]*)`", row.rstrip(" |").rpartition("|")[2])
        assert names, f"no test: {row}"
        for name in names:
            if name.endswith("/"):
                continue  # a folder besides
            path, _, test = name.partition("::")
            file = path if path.endswith(".py") else file or "test_dicom_server.py"
            test = test or ("" if path.endswith(".py") else path)
            found = [source for at, source in sources.items() if at.as_posix().endswith(f"/{file}")]
            assert found, f"{file} is not there"
            assert any(f"def {test}(" in source or f"class {test}" in source for source in found) or not test, name
