"""Valid files with damage that hypothesis thinks of: whatever comes, a reader reads or refuses with words."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parents[2] / "fuzz"))

from readers import READERS

BY_NAME = {reader.name: reader for reader in READERS}
EXAMPLES = {"bundle-yaml": 15, "safetensors": 15}


@cache
def _seeds(name: str) -> list[bytes]:
    return BY_NAME[name].seeds()


@st.composite
def _damaged(draw: st.DrawFn, name: str) -> bytes:
    """A valid file with flipped bits, or cut, or with words of its format or a part of another file put in."""
    content = bytearray(draw(st.sampled_from(_seeds(name))))
    for _ in range(draw(st.integers(1, 4))):
        # Headers are where it hurts.
        at = draw(st.integers(0, min(len(content), draw(st.sampled_from([64, 512, 1 << 20])))))
        match draw(st.sampled_from(["flip", "cut", "put", "over", "splice"])):
            case "flip" if at < len(content):
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del content[at : at + draw(st.sampled_from([1, 2, 100, 1 << 20]))]
            case "put":
                content[at:at] = draw(st.sampled_from(BY_NAME[name].words))
            case "over":
                word = draw(st.sampled_from([*BY_NAME[name].words, b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff"]))
                content[at : at + len(word)] = word
            case "splice":
                other = draw(st.sampled_from(_seeds(name)))
                content[at:] = other[draw(st.integers(0, len(other))) :]
    return bytes(content)


@pytest.mark.parametrize("name", BY_NAME)
def test_damage_is_answered_with_words(name: str, folder_of: Callable[..., Path]) -> None:
    reader: Any = BY_NAME[name]
    folder = folder_of(reader)

    @settings(
        max_examples=EXAMPLES.get(name, 60), deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(_damaged(name))
    def check(content: bytes) -> None:
        message = reader.feed(folder, content)
        assert message == "" or message.endswith(".")

    check()


@pytest.mark.parametrize("name", BY_NAME)
def test_the_fuzzer_starts_from_files_that_are_read(name: str, folder_of: Callable[..., Path]) -> None:
    # Otherwise all the fuzzing would be of the first check. Masks and single frames are refused for what they are.
    reader = BY_NAME[name]
    words = ("grey levels, not labels", "that are no labels", "coloured mask", "pages", "Run lengths")
    for content in _seeds(name):
        message = reader.feed(folder_of(reader), content)
        assert not message or any(word in message for word in words)
