from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgefusion.data.readers import MAX_LABEL, read_frame, read_labels, read_mask
from edgefusion.errors import DataError


def palette_picture(indices: np.ndarray, colours: list[int]) -> Image.Image:
    picture = Image.fromarray(indices.astype(np.uint8), mode="P")
    picture.putpalette(colours)
    return picture


INDICES = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)


class TestPalettes:
    def test_the_index_is_the_label(self, tmp_path: Path) -> None:
        palette_picture(INDICES, [0, 0, 0, 255, 0, 0, 0, 0, 255]).save(tmp_path / "x.png")
        np.testing.assert_array_equal(read_mask(tmp_path / "x.png"), INDICES)

    def test_a_frame_shows_the_colour_not_the_index(self, tmp_path: Path) -> None:
        palette_picture(INDICES, [0, 0, 0, 90, 90, 90, 200, 200, 200]).save(tmp_path / "x.png")
        np.testing.assert_array_equal(read_frame(tmp_path / "x.png"), np.array([0, 90, 200])[INDICES])

    def test_a_transparent_palette_colour_is_black(self, tmp_path: Path) -> None:
        palette_picture(INDICES, [80, 80, 80, 90, 90, 90, 200, 200, 200]).save(tmp_path / "x.png", transparency=0)
        np.testing.assert_array_equal(read_frame(tmp_path / "x.png"), np.array([0, 90, 200])[INDICES])


def test_one_bit_pictures(tmp_path: Path) -> None:
    bits = np.array([[True, False, True], [False, False, True]])
    Image.fromarray(bits).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_frame(tmp_path / "x.png"), bits * 255)
    np.testing.assert_array_equal(read_mask(tmp_path / "x.png"), bits)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_a_mask_may_be_grey_in_a_colour_format(tmp_path: Path, mode: str) -> None:
    Image.fromarray(INDICES).convert(mode).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "x.png"), INDICES)


def test_a_coloured_mask_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match="coloured mask"):
        read_mask(tmp_path / "x.png")


@pytest.mark.parametrize("highest", [MAX_LABEL + 1, 128, 255])
def test_grey_levels_are_not_labels(tmp_path: Path, highest: int) -> None:
    Image.fromarray(np.array([[0, 7, highest]], np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match=f"values up to {highest}"):
        read_mask(tmp_path / "x.png")


def test_an_all_zero_mask_is_empty(tmp_path: Path) -> None:
    Image.new("L", (5, 3)).save(tmp_path / "x.png")
    mask = read_mask(tmp_path / "x.png")
    assert mask.shape == (3, 5)
    assert not mask.any()


def test_labels_of_a_study_are_taken_as_they_are(tmp_path: Path) -> None:
    Image.fromarray(INDICES).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "x.png"), INDICES)
    Image.fromarray(INDICES * 127).save(tmp_path / "y.png")
    with pytest.raises(DataError, match="grey levels"):
        read_labels(tmp_path / "y.png")


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".png"])
def test_a_noted_orientation_turns_the_picture_upright_once(tmp_path: Path, suffix: str) -> None:
    lying = np.zeros((32, 64), np.uint8)
    lying[:, :32] = 200
    orientation = Image.Exif()
    orientation[0x0112] = 6  # to be turned clockwise by a quarter
    Image.fromarray(lying).save(tmp_path / f"x{suffix}", exif=orientation)
    frame = read_frame(tmp_path / f"x{suffix}")
    assert frame.shape == (64, 32)
    assert frame[:28].min() > 190
    assert frame[36:].max() < 10


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
def test_compressed_tiff(tmp_path: Path, compression: str) -> None:
    expected = np.full((24, 32), 77, np.uint8)
    Image.fromarray(expected).save(tmp_path / "x.tif", compression=compression)
    np.testing.assert_array_equal(read_frame(tmp_path / "x.tif"), expected)


def test_several_pages_are_refused(tmp_path: Path) -> None:
    page = Image.new("L", (6, 6))
    page.save(tmp_path / "x.tif", save_all=True, append_images=[page, page])
    with pytest.raises(DataError, match="has 3 pages"):
        read_frame(tmp_path / "x.tif")


def test_floating_point_is_refused_by_its_name(tmp_path: Path) -> None:
    Image.fromarray(np.ones((6, 6), np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match="samples of type float32"):
        read_frame(tmp_path / "x.tif")


def test_a_tiny_file_that_claims_a_huge_picture(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(bomb)
    with pytest.raises(DataError, match="pixels"):
        read_frame(tmp_path / "x.png")


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_frame(tmp_path)


def test_real_palette_masks(data_root: Path) -> None:
    mask = read_mask(data_root / "usgra" / "masks" / "0041.png")
    assert set(np.unique(mask)) <= {0, 1, 2}
    assert mask.shape == read_frame(data_root / "usgra" / "images" / "0041.png").shape
