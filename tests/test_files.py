from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefusion.files import atomic_path, sha256_of_bytes, sha256_of_file, write_json, write_text


def test_a_file_appears_whole_under_its_name(tmp_path: Path) -> None:
    target = tmp_path / "new" / "deep" / "x.png"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".png"
        temporary.write_bytes(b"half")
        assert not target.exists()
    assert target.read_bytes() == b"half"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "x.txt"
    target.write_text("before")

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_an_existing_file_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "x.txt"
    write_text(target, "one")
    write_text(target, "zwei ä €")
    assert target.read_bytes() == "zwei ä €".encode()


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_new_file(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "ours", "x")
        (tmp_path / "plain").write_text("x")
    finally:
        os.umask(before)
    ours, plain = ((tmp_path / name).stat().st_mode for name in ("ours", "plain"))
    assert stat.S_IMODE(ours) == stat.S_IMODE(plain)


def test_json_holds_numpy_scalars_tuples_and_missing_numbers(tmp_path: Path) -> None:
    value = {1: np.float32(0.5), "n": np.int64(3), "nan": float("nan"), "t": (np.float64("nan"), "ü", None, True)}
    write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"1": 0.5, "n": 3, "nan": None, "t": [None, "ü", None, True]}
    assert text.endswith("\n")


_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(_plain)
def test_json_round_trip(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    file = tmp_path_factory.getbasetemp() / "value.json"
    write_json(file, value)
    assert json.loads(file.read_text(encoding="utf-8")) == value


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    write_json(file, [1])
    with pytest.raises(TypeError):
        write_json(file, [object()])
    assert json.loads(file.read_text()) == [1]


def test_sha256_is_the_standards(tmp_path: Path) -> None:
    # FIPS 180-2, appendix B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of_bytes(b"abc") == expected
    assert sha256_of_file(tmp_path / "abc") == expected
