from __future__ import annotations

import csv
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from edgefusion.data.kaggle import FRAME_SHAPE, decode_rle, encode_rle, read_mask_table, write_submission
from edgefusion.errors import DataError


def encode_slowly(mask: np.ndarray) -> str:
    """The competition's own words: pixels numbered from 1, from top to bottom, then from left to right."""
    runs: list[int] = []
    number, inside = 0, False
    for column in range(mask.shape[1]):
        for row in range(mask.shape[0]):
            number += 1
            if mask[row, column] and inside:
                runs[-1] += 1
            elif mask[row, column]:
                runs += [number, 1]
            inside = bool(mask[row, column])
    return " ".join(str(value) for value in runs)


MASKS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 1))


@given(MASKS)
def test_encoding_agrees_with_the_definition(mask: np.ndarray) -> None:
    assert encode_rle(mask) == encode_slowly(mask)


@given(MASKS)
def test_decoding_undoes_encoding(mask: np.ndarray) -> None:
    decoded = decode_rle(encode_rle(mask), mask.shape)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, mask)


def test_a_run_goes_down_a_column_and_on_in_the_next() -> None:
    mask = decode_rle("2 3", (3, 2))
    np.testing.assert_array_equal(mask, [[0, 1], [1, 0], [1, 0]])


@pytest.mark.parametrize("text", ["", "   "])
def test_empty_text_is_an_empty_mask(text: str) -> None:
    assert not decode_rle(text, (4, 5)).any()
    assert encode_rle(np.zeros((4, 5))) == ""


def test_any_non_zero_value_counts() -> None:
    assert encode_rle(np.array([[0.0, 0.5], [0.0, 255.0]])) == "3 2"


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "1 2 3",
        "a b",
        "1.5 2",
        "-3 2",
        "0 2",
        "1 0",
        "5 2 1 2",
        "1 4 3 2",
        "20 2",
        "1 99",
        "+1 2",
        "1_0 2",
        "9" * 30 + " 1",
    ],
)
def test_malformed_run_lengths_are_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"[Rr]un lengths"):
        decode_rle(text, (4, 5))


def test_adjacent_runs_are_allowed() -> None:
    assert decode_rle("1 2 3 2", (2, 3)).sum() == 4


def test_mask_table(tmp_path: Path) -> None:
    path = tmp_path / "train_masks.csv"
    path.write_text("subject,img,pixels\n1,2,3 4 9 2\n1,3,\n")
    assert read_mask_table(path) == {"1_2": "3 4 9 2", "1_3": ""}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("img,pixels\n1,2 3\n", "line 2, lacks"),
        ("subject,img,pixels\n1,2\n", "line 2, lacks"),
        ("subject,img,pixels\n1,2,\n1,2,3 4\n", "line 3, lists frame 1_2 a second time"),
    ],
)
def test_a_wrong_mask_table_names_the_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "train_masks.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_mask_table(tmp_path / "train_masks.csv")


def test_submission(tmp_path: Path) -> None:
    masks = [("1", np.zeros((3, 2))), ("2", np.array([[0, 1], [1, 0], [1, 0]]))]
    write_submission(tmp_path / "answer.csv", masks)
    assert (tmp_path / "answer.csv").read_text() == "img,pixels\n1,\n2,2 3\n"
    with (tmp_path / "answer.csv").open() as file:
        assert [row["pixels"] for row in csv.DictReader(file)] == ["", "2 3"]


def test_every_real_mask_survives_both_ways(data_root: Path) -> None:
    table = read_mask_table(data_root / "kaggle-nerve" / "train_masks.csv")
    assert len(table) == 4555
    assert sum(not runs for runs in table.values()) == 2597
    started = time.thread_time()
    wrong = [name for name, runs in table.items() if encode_rle(decode_rle(runs, FRAME_SHAPE)) != runs]
    assert wrong == []
    assert time.thread_time() - started < 5


def test_run_lengths_agree_with_the_mask_files(data_root: Path) -> None:
    from edgefusion.data.readers import read_mask

    table = read_mask_table(data_root / "kaggle-nerve" / "train_masks.csv")
    files = sorted((data_root / "kaggle-nerve" / "fullres").glob("*_mask.tif"))[:10]
    for file in files:
        runs = table[file.stem.removesuffix("_mask")]
        np.testing.assert_array_equal(decode_rle(runs, FRAME_SHAPE), read_mask(file))
