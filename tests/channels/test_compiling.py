"""Compiled code must run wherever its cache can be written, and where it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core.caching import FunctionCache

from edgefusion.channels import bands
from edgefusion.channels.compiling import _ForgivingCache, compiled


def double(x: int) -> int:
    return 2 * x


def test_works_without_any_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, function: object) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(_ForgivingCache, "__init__", refuse)
    assert compiled(double)(21) == 42


def test_works_when_the_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, *args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FunctionCache, "save_overload", refuse)
    monkeypatch.setattr(FunctionCache, "load_overload", refuse)
    assert compiled(double)(21) == 42


def test_works_with_an_unwritable_cache_folder(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    source = Path(bands.__file__).parents[2]
    program = (
        "from edgefusion.channels.compiling import compiled\n"
        "def triple(x):\n    return 3 * x\n"
        "print(compiled(triple)(14))"
    )
    script = tmp_path / "program.py"
    script.write_text(program)
    os.chmod(tmp_path, 0o500)
    environment = {**os.environ, "PYTHONPATH": str(source), "NUMBA_CACHE_DIR": str(blocked / "cache")}
    environment |= {"HOME": str(blocked), "XDG_CACHE_HOME": str(blocked)}
    result = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False)
    os.chmod(tmp_path, 0o700)
    assert result.stdout.strip() == "42", result.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process")
def test_a_forked_child_gets_threads_of_its_own() -> None:
    seen: list[int] = []
    bands.run_bands(lambda band, first, last: seen.append(band), 10, 2)
    child = os.fork()
    if child == 0:
        bands.run_bands(lambda band, first, last: None, 10, 2)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_bands_cover_each_row_once_and_know_their_number() -> None:
    seen: list[tuple[int, int, int]] = []
    bands.run_bands(lambda *band: seen.append(band), 10, 3)
    assert sorted(seen) == [(0, 0, 3), (1, 3, 6), (2, 6, 10)]


def test_an_error_in_a_band_is_raised() -> None:
    def work(band: int, first: int, last: int) -> None:
        if band == 1:
            raise ValueError("band 1")

    with pytest.raises(ValueError, match="band 1"):
        bands.run_bands(work, 100, 3)
