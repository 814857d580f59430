"""The rule of the house: a room imports only itself and rooms before it, and networks never import Lightning."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import edgefusion

ROOMS = ("data", "channels", "models", "inference", "evaluation", "training", "cluster", "serving")
_SOURCE = Path(edgefusion.__file__).parent


def _imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_before_it(room: str) -> None:
    later = ROOMS[ROOMS.index(room) + 1 :]
    for file in (_SOURCE / room).rglob("*.py"):
        for module in _imports(file):
            parts = module.split(".")
            assert not (parts[0] == "edgefusion" and len(parts) > 1 and parts[1] in later), f"{file} imports {module}"


def test_networks_are_plain_torch() -> None:
    for file in (_SOURCE / "models").rglob("*.py"):
        assert not any(module.split(".")[0] in ("lightning", "pytorch_lightning") for module in _imports(file))


def test_files_stay_readable() -> None:
    for file in _SOURCE.rglob("*.py"):
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 400, file
