from __future__ import annotations

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from edgefusion.data import duplicates
from edgefusion.data.duplicates import GROUP_SIMILARITY, contradictions, describe, group_leaders, similar_pairs


def table(count: int, area: list[float] | None = None) -> pd.DataFrame:
    names = [f"f{index}" for index in range(count)]
    areas = pd.array(area if area is not None else [1] * count, dtype="Int64")
    return pd.DataFrame({"frame_id": names, "sha256": names, "area_px": areas})


def groups_of(images: list[np.ndarray]) -> list[int]:
    descriptions = np.stack([describe(image) for image in images])
    return group_leaders(table(len(images)), similar_pairs(descriptions)).tolist()


def faded(image: np.ndarray) -> np.ndarray:
    depth = np.linspace(1, 0.4, image.shape[0])[:, None]
    return (image * depth).astype(np.uint8)


def with_margins(image: np.ndarray) -> np.ndarray:
    framed = cv2.copyMakeBorder(image, 30, 55, 12, 70, cv2.BORDER_CONSTANT, value=0)
    framed[3:8, 3:8] = 255  # the maker's mark in the corner
    return framed


SAME_PICTURE = {
    "scaled": lambda image: cv2.resize(image, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA),
    "stretched": lambda image: cv2.resize(image, (300, 150), interpolation=cv2.INTER_LINEAR),
    "margins": with_margins,
    "cropped a little": lambda image: image[4:, 2:-8],
    "other depth gain": faded,
    "brighter": lambda image: cv2.convertScaleAbs(image, alpha=1.1, beta=10),
    "16 bit": lambda image: image.astype(np.uint16) * 257,
    "compressed": lambda image: cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 0),
}


@pytest.mark.parametrize("change", SAME_PICTURE.values(), ids=SAME_PICTURE.keys())
def test_the_same_picture_is_found_again(make_tissue, change) -> None:
    image = make_tissue(0, 200, 260)
    other = make_tissue(1, 200, 260)
    assert groups_of([image, other, change(image)]) == [0, 1, 0]


def test_different_pictures_stay_apart(make_tissue) -> None:
    assert groups_of([make_tissue(seed, 150, 200) for seed in range(60)]) == list(range(60))


def test_common_depth_gain_is_no_likeness(make_tissue) -> None:
    assert groups_of([faded(make_tissue(seed, 150, 200)) for seed in range(40)]) == list(range(40))


def test_likeness_goes_on_through_others() -> None:
    turns = np.deg2rad([0, 30, 60, 180])
    descriptions = np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(np.float32)
    assert group_leaders(table(4), similar_pairs(descriptions)).tolist() == [0, 0, 0, 3]


def test_pairs_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    whole = similar_pairs(points)
    expected = {(i, j) for i in range(50) for j in range(i + 1, 50) if points[i] @ points[j] >= GROUP_SIMILARITY}
    assert set(zip(whole.first.tolist(), whole.second.tolist(), strict=True)) == expected
    monkeypatch.setattr(duplicates, "_BLOCK", 7)
    parts = similar_pairs(points)
    assert set(zip(parts.first.tolist(), parts.second.tolist(), strict=True)) == expected


def test_the_search_does_not_hold_a_row_of_the_table_of_similarities() -> None:
    """Of 20,000 frames 1024 rows would be 80 MB, of a million 4 GB."""
    points = np.random.default_rng(0).standard_normal((20_000, 2)).astype(np.float32)
    points[17], points[19_000] = (100, 0), (200, 0)
    tracemalloc.start()
    pairs = similar_pairs(points, 19_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([17], [19_000])
    assert peak < 30e6


def test_a_picture_without_structure_resembles_none_but_its_copy() -> None:
    flat = np.full((40, 50), 90, np.uint8)
    assert not describe(flat).any()
    frames = table(3).assign(sha256=["a", "b", "a"])
    assert group_leaders(frames, similar_pairs(np.stack([describe(flat)] * 3))).tolist() == [0, 1, 0]


def test_contradictions_name_the_most_similar_masked_frame() -> None:
    turns = np.deg2rad([0, 5, 10, 90, 92, 93])
    descriptions = np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(np.float32)
    frames = table(6, [0, 30, 40, 0, pd.NA, 0])
    found = contradictions(frames, similar_pairs(descriptions))
    assert found[["empty_frame", "masked_frame"]].to_numpy().tolist() == [["f0", "f1"]]
    assert found["similarity"][0] == pytest.approx(np.cos(np.deg2rad(5)), abs=1e-3)


def test_contradictions_need_near_identity() -> None:
    turns = np.deg2rad([0, 25])
    descriptions = np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(np.float32)
    assert contradictions(table(2, [0, 5]), similar_pairs(descriptions)).empty


EXPORTED_TWICE = [("0002", "0047"), ("0003", "0050"), ("0014", "0083"), ("0021", "0104"), ("0043", "0077")]


def test_real_pictures_exported_twice(data_root: Path) -> None:
    folder = data_root / "usgra" / "images"
    names = [name for pair in EXPORTED_TWICE for name in pair] + ["0008", "0041", "0064", "0095", "0129", "0142"]
    leaders = groups_of([cv2.imread(str(folder / f"{name}.png"), cv2.IMREAD_GRAYSCALE) for name in names])
    assert leaders == [0, 0, 2, 2, 4, 4, 6, 6, 8, 8, *range(10, 16)]
