from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kills.py"


@pytest.mark.parametrize("verb", ["ingest", "predict"])
def test_a_killed_verb_ends_as_an_undisturbed_one_when_started_again(tmp_path: Path, verb: str) -> None:
    specification = importlib.util.spec_from_file_location("kills", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    kills = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(kills)
    _, results, different = kills.torment(verb, 2, tmp_path)
    assert (results, different) == (1, 0)
