from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from edgefusion.bundle import Bundle
from edgefusion.config import ChannelRecipe
from edgefusion.data.kaggle import decode_rle
from edgefusion.data.readers import read_labels
from edgefusion.errors import DataError
from edgefusion.inference.predictor import Prediction
from edgefusion.inference.writers import COLOURS, NOTICE, Result, draw_overlay, prune_submission, write_results

BUNDLE = Bundle(nn.Identity(), "unet", ChannelRecipe(), ["nerve"], study_name="necks", versions={"edgefusion": "1.2.3"})
GREY = np.full((120, 160), 100, dtype=np.uint8)


def prediction(*regions: NDArray[np.bool_], spacing: bool = False) -> Prediction:
    mask = np.zeros(GREY.shape, dtype=np.uint8)
    for label, region in enumerate(regions, start=1):
        mask[region] = label
    found = [cv2.findContours(r.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0] for r in regions]
    areas = tuple(int(region.sum()) for region in regions)
    return Prediction(
        mask=mask,
        probability=np.stack(regions).astype(np.float32),
        edge_probability=np.zeros((len(regions), *GREY.shape), np.float32),
        presence=tuple(0.87654321 for _ in regions),
        area_px=areas,
        area_mm2=tuple(area * 0.01 for area in areas) if spacing else None,
        contours=[[contour.reshape(-1, 2).astype(np.float32) for contour in label] for label in found],
        labels=["nerve", "vessel", "muscle"][: len(regions)],
    )


def disc(row: int, column: int, radius: int = 12) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[:120, :160]
    return np.asarray((rows - row) ** 2 + (columns - column) ** 2 <= radius**2)


def test_png_holds_the_labels(tmp_path: Path) -> None:
    found = prediction(disc(20, 20), disc(40, 60))
    write_results("png", tmp_path, [Result("x", GREY, found)], BUNDLE)
    with Image.open(tmp_path / "x_mask.png") as image:
        assert (image.format, image.mode) == ("PNG", "L")
    np.testing.assert_array_equal(read_labels(tmp_path / "x_mask.png"), found.mask)


def test_overlay_shows_outlines_and_never_fills(tmp_path: Path) -> None:
    region = disc(30, 45, 20)
    write_results("overlay", tmp_path, [Result("x", GREY, prediction(region))], BUNDLE)
    with Image.open(tmp_path / "x_overlay.png") as image:
        assert image.mode == "RGB"
        picture = np.asarray(image)
    changed = (picture != 100).any(2)
    border = region & ~cv2.erode(region.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    assert changed[border].all()
    assert not changed[cv2.erode(region.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)].any()
    assert not changed[~cv2.dilate(region.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)].any()
    red, green, blue = picture[border].mean(0)
    assert red > 200
    assert blue > 200
    assert green < 60


def test_each_label_has_its_own_colour_and_a_legend() -> None:
    found = prediction(disc(90, 30), disc(90, 75), disc(90, 120))
    picture = draw_overlay(GREY, found).astype(int)
    for label, column in enumerate((30, 75, 120)):
        for place in (picture[76:80, column], picture[:60].reshape(-1, 3)):
            assert (np.abs(place - COLOURS[label]).max(1) < 60).any(), label
    # One label needs none.
    assert (draw_overlay(GREY, prediction(disc(90, 45)))[:60] == 100).all()


def test_more_labels_than_colours_are_drawn() -> None:
    regions = [disc(30, 8 + 12 * n, 4) for n in range(len(COLOURS) + 1)]
    found = prediction(*regions[:3])
    many = Prediction(
        **{**vars(found), "contours": found.contours * 2, "labels": [*"abcdef"]}  # type: ignore[arg-type]
    )
    assert draw_overlay(GREY, many).shape == (120, 160, 3)


def test_16_bit_frames_are_shown_whole() -> None:
    frame = np.linspace(0, 65535, 19200).reshape(120, 160).astype(np.uint16)
    picture = draw_overlay(frame, prediction(np.zeros((120, 160), bool)))
    np.testing.assert_allclose(picture[..., 0], frame / 257, atol=0.51)


def test_an_outline_at_the_rim_is_drawn_within_the_frame() -> None:
    assert draw_overlay(GREY, prediction(np.ones((120, 160), bool))).shape == (120, 160, 3)


def test_json_says_everything_and_what_it_is_not_for(tmp_path: Path) -> None:
    region = np.zeros((120, 160), bool)
    region[10:21, 30:51] = True
    write_results("json", tmp_path, [Result("x", GREY, prediction(region, spacing=True))], BUNDLE)
    values = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert values["notice"] == NOTICE == "research use, not for diagnosis"
    assert values["frame"] == "x"
    assert values["size"] == {"height": 120, "width": 160}
    assert values["bundle"] == {"model": "unet", "study": "necks", "version": "1.2.3"}
    (label,) = values["labels"]
    assert (label["name"], label["presence"]) == ("nerve", 0.876543)
    assert (label["area_px"], label["area_mm2"]) == (231, pytest.approx(2.31))
    points = np.array(label["contours"][0])
    assert (points.min(0).tolist(), points.max(0).tolist()) == ([30, 10], [50, 20])


def test_json_rounds_outlines_to_a_tenth_of_a_pixel(tmp_path: Path) -> None:
    found = prediction(np.zeros((120, 160), bool))
    found.contours[0].append(np.array([[1.26, 2.04], [3, 4]], dtype=np.float32))
    write_results("json", tmp_path, [Result("x", GREY, found)], BUNDLE)
    (label,) = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))["labels"]
    assert label["contours"] == [[[1.3, 2.0], [3.0, 4.0]]]
    assert label["area_mm2"] is None


def test_kaggle_rows_are_the_masks_in_natural_order(tmp_path: Path) -> None:
    masks = {"10": disc(20, 20), "9": np.zeros((120, 160), bool), "1": disc(40, 60)}
    results = [Result(name, GREY, prediction(mask)) for name, mask in masks.items()]
    write_results("kaggle", tmp_path, results, BUNDLE)
    text = (tmp_path / "submission.csv").read_text()
    assert [line.split(",")[0] for line in text.splitlines()] == ["img", "1", "9", "10"]
    assert "\n9,\n" in text
    table = pd.read_csv(tmp_path / "submission.csv", dtype=str, keep_default_na=False)
    for name, pixels in table.itertuples(index=False):
        np.testing.assert_array_equal(decode_rle(pixels, (120, 160)), masks[name])


def test_kaggle_keeps_other_rows_and_prunes_on_request(tmp_path: Path) -> None:
    def names() -> list[str]:
        return [line.split(",")[0] for line in (tmp_path / "submission.csv").read_text().splitlines()[1:]]

    for name in ("2", "1", "3"):
        write_results("kaggle", tmp_path, [Result(name, GREY, prediction(disc(20, 20)))], BUNDLE)
    assert names() == ["1", "2", "3"]
    prune_submission(tmp_path, {"1", "3", "99"})
    assert names() == ["1", "3"]


def test_pruning_where_there_is_no_submission_does_nothing(tmp_path: Path) -> None:
    prune_submission(tmp_path, set())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"img;pixels\n1;2 3\n", b"\xff\xfe\x00", b"a,b\n1,2\n"])
def test_a_foreign_submission_is_not_overwritten(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "submission.csv"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"submission\.csv.*Move it away"):
        write_results("kaggle", tmp_path, [Result("1", GREY, prediction(disc(20, 20)))], BUNDLE)
    assert file.read_bytes() == content
