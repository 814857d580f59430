"""Every output format keeps the same contract."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from edgefusion.bundle import Bundle
from edgefusion.config import ChannelRecipe
from edgefusion.errors import StorageError, UsageError
from edgefusion.inference.predictor import Prediction
from edgefusion.inference.writers import FORMATS, STILL_FORMATS, Result, check_formats, output_path, write_results

every_format = pytest.mark.parametrize("format_", STILL_FORMATS)

FRAME = (np.indices((30, 40)).sum(0) * 3).astype(np.uint8)


def bundle(*labels: str) -> Bundle:
    return Bundle(nn.Identity(), "unet", ChannelRecipe(), list(labels))


def prediction(empty: bool = False, labels: tuple[str, ...] = ("nerve",)) -> Prediction:
    mask = np.zeros((30, 40), dtype=np.uint8)
    contours: list[list[NDArray[np.float32]]] = [[] for _ in labels]
    if not empty:
        for label in range(len(labels)):
            top = 4 + 8 * label
            mask[top : top + 5, 10:21] = label + 1
            corners = [(10, top), (10, top + 4), (20, top + 4), (20, top)]
            contours[label].append(np.array(corners, dtype=np.float32))
    return Prediction(
        mask=mask,
        probability=np.stack([(mask == k + 1).astype(np.float32) for k in range(len(labels))]),
        edge_probability=np.zeros((len(labels), 30, 40), np.float32),
        presence=tuple(0.1 if empty else 0.9 for _ in labels),
        area_px=tuple(int((mask == k + 1).sum()) for k in range(len(labels))),
        area_mm2=None,
        contours=contours,
        labels=list(labels),
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@every_format
def test_it_writes_the_files_it_says_and_nothing_else(format_: str, tmp_path: Path) -> None:
    names = ["a", "b"]
    folder = tmp_path / "made" / "for it"
    write_results(format_, folder, [Result(name, FRAME, prediction()) for name in names], bundle("nerve"))
    assert {folder / name for name in tree(folder)} == {output_path(format_, folder, name) for name in names}
    assert all(tree(folder).values())


@every_format
def test_the_same_result_gives_the_same_bytes(format_: str, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_results(format_, tmp_path / folder, [Result("a", FRAME, prediction())], bundle("nerve"))
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


@every_format
def test_writing_again_replaces(format_: str, tmp_path: Path) -> None:
    write_results(format_, tmp_path, [Result("a", FRAME, prediction(empty=True))], bundle("nerve"))
    before = tree(tmp_path)
    write_results(format_, tmp_path, [Result("a", FRAME, prediction())], bundle("nerve"))
    assert tree(tmp_path).keys() == before.keys()
    assert tree(tmp_path) != before


@every_format
def test_frames_by_and_by_give_what_they_give_together(format_: str, tmp_path: Path) -> None:
    results = [Result(str(n), FRAME, prediction(empty=n % 2 == 0)) for n in (10, 9, 1)]
    write_results(format_, tmp_path / "together", results, bundle("nerve"))
    for result in reversed(results):
        write_results(format_, tmp_path / "by and by", [result], bundle("nerve"))
    assert tree(tmp_path / "together") == tree(tmp_path / "by and by")


@every_format
def test_an_empty_prediction_is_written_too(format_: str, tmp_path: Path) -> None:
    write_results(format_, tmp_path, [Result("a", FRAME, prediction(empty=True))], bundle("nerve"))
    assert output_path(format_, tmp_path, "a").stat().st_size > 0


@every_format
def test_no_results_no_files(format_: str, tmp_path: Path) -> None:
    write_results(format_, tmp_path / "out", [], bundle("nerve"))
    assert tree(tmp_path) == {}


@every_format
@pytest.mark.parametrize(
    "image",
    [FRAME, FRAME.astype(np.uint16) * 257, FRAME / 255, np.repeat(FRAME[..., None], 3, axis=2)],
    ids=["uint8", "uint16", "float", "RGB"],
)
def test_every_kind_of_frame_is_taken_and_left_alone(format_: str, image: NDArray[Any], tmp_path: Path) -> None:
    before = image.copy()
    write_results(format_, tmp_path / "out", [Result("a", image, prediction())], bundle("nerve"))
    write_results(format_, tmp_path / "uint8", [Result("a", FRAME, prediction())], bundle("nerve"))
    np.testing.assert_array_equal(image, before)
    assert tree(tmp_path / "out") == tree(tmp_path / "uint8")


@every_format
@pytest.mark.parametrize("name", ["1_2", "a.b", "with blank", "Ünïcode", "comma, \"quote\" and 'more'", "-2"])
def test_any_name_works(format_: str, name: str, tmp_path: Path) -> None:
    for _ in range(2):
        write_results(format_, tmp_path, [Result(name, FRAME, prediction())], bundle("nerve"))
    assert [tmp_path / name for name in tree(tmp_path)] == [output_path(format_, tmp_path, name)]


@every_format
def test_a_failure_leaves_what_was_there(format_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_results(format_, tmp_path, [Result("a", FRAME, prediction())], bundle("nerve"))
    before = tree(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="is full"):
        write_results(format_, tmp_path, [Result("a", FRAME, prediction(empty=True))], bundle("nerve"))
    assert tree(tmp_path) == before


@pytest.mark.parametrize("format_", [name for name in STILL_FORMATS if name != "kaggle"])
def test_several_labels(format_: str, tmp_path: Path) -> None:
    labels = ("nerve", "vessel", "muscle")
    check_formats([format_], labels)
    write_results(format_, tmp_path / "one", [Result("a", FRAME, prediction())], bundle("nerve"))
    write_results(format_, tmp_path / "all", [Result("a", FRAME, prediction(labels=labels))], bundle(*labels))
    assert tree(tmp_path / "one") != tree(tmp_path / "all")


def test_kaggle_refuses_several_labels() -> None:
    with pytest.raises(UsageError, match="nerve, vessel"):
        check_formats(["png", "kaggle"], ["nerve", "vessel"])


def test_formats_are_checked() -> None:
    check_formats(FORMATS, ["nerve"])
    with pytest.raises(UsageError, match="Did you mean 'overlay'"):
        check_formats(["overlays"], ["nerve"])
    with pytest.raises(UsageError, match="png, overlay, json, kaggle"):
        check_formats([], ["nerve"])
    with pytest.raises(UsageError, match="tiff"):
        write_results("tiff", Path("nowhere"), [Result("a", FRAME, prediction())], bundle("nerve"))
    with pytest.raises(UsageError, match="'video' for stills"):
        write_results("video", Path("nowhere"), [Result("a", FRAME, prediction())], bundle("nerve"))


def test_no_two_formats_share_a_file_of_different_frames(tmp_path: Path) -> None:
    names = ["a", "a_mask", "a_overlay", "a_mask_overlay", "submission"]
    paths = [output_path(f, tmp_path, name) for f in STILL_FORMATS if f != "kaggle" for name in names]
    assert len({*paths, output_path("kaggle", tmp_path, "")}) == len(paths) + 1
