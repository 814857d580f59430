"""What every picture format must keep: the pixels as they are, and one clear error for what cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from edgefusion.data import readers
from edgefusion.data.readers import SUFFIXES, read_frame, read_mask
from edgefusion.data.sources import SUFFIXES as SOURCES
from edgefusion.data.sources import open_clip
from edgefusion.errors import DataError

LOSSLESS = (".png", ".tif", ".tiff")
READERS = (read_frame, read_mask)


def gradient(dtype: type, height: int = 24, width: int = 36) -> np.ndarray:
    full = np.iinfo(dtype).max
    return np.linspace(0, full, height * width).reshape(height, width).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", LOSSLESS)
class TestLosslessFormats:
    def test_grey_is_kept(self, tmp_path: Path, suffix: str, dtype: type) -> None:
        expected = gradient(dtype)
        cv2.imwrite(str(tmp_path / f"x{suffix}"), expected)
        frame = read_frame(tmp_path / f"x{suffix}")
        assert frame.dtype == dtype
        np.testing.assert_array_equal(frame, expected)

    def test_colour_that_is_grey_is_kept(self, tmp_path: Path, suffix: str, dtype: type) -> None:
        expected = gradient(dtype)
        cv2.imwrite(str(tmp_path / f"x{suffix}"), np.dstack([expected] * 3))
        frame = read_frame(tmp_path / f"x{suffix}")
        assert frame.dtype == dtype
        np.testing.assert_array_equal(frame, expected)

    def test_colour_becomes_luma(self, tmp_path: Path, suffix: str, dtype: type) -> None:
        full = np.iinfo(dtype).max
        blue_green_red = np.zeros((5, 7, 3), dtype)
        blue_green_red[..., 2] = full
        cv2.imwrite(str(tmp_path / f"x{suffix}"), blue_green_red)
        assert read_frame(tmp_path / f"x{suffix}") == pytest.approx(0.299 * full, abs=1)

    def test_transparent_pixels_are_black(self, tmp_path: Path, suffix: str, dtype: type) -> None:
        full = np.iinfo(dtype).max
        pixels = np.full((5, 7, 4), full, dtype)
        pixels[:, 3:, 3] = 0
        cv2.imwrite(str(tmp_path / f"x{suffix}"), pixels)
        frame = read_frame(tmp_path / f"x{suffix}")
        assert (frame[:, :3] == full).all()
        assert (frame[:, 3:] == 0).all()

    def test_labels_are_kept(self, tmp_path: Path, suffix: str, dtype: type) -> None:
        expected = (np.arange(35).reshape(5, 7) % 4).astype(dtype)
        cv2.imwrite(str(tmp_path / f"x{suffix}"), expected)
        mask = read_mask(tmp_path / f"x{suffix}")
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, expected)

    def test_black_and_white_is_label_1(self, tmp_path: Path, suffix: str, dtype: type) -> None:
        expected = np.eye(9, dtype=dtype)
        cv2.imwrite(str(tmp_path / f"x{suffix}"), expected * np.iinfo(dtype).max)
        np.testing.assert_array_equal(read_mask(tmp_path / f"x{suffix}"), expected)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("read", READERS)
class TestEveryFormat:
    def written(self, folder: Path, suffix: str) -> Path:
        path = folder / f"x{suffix}"
        cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (64, 48), dtype=np.uint8))
        return path

    def test_an_empty_file_is_named(self, tmp_path: Path, suffix: str, read: Callable) -> None:
        (tmp_path / f"x{suffix}").write_bytes(b"")
        with pytest.raises(DataError, match=rf"x\{suffix} is empty \(0 bytes\)"):
            read(tmp_path / f"x{suffix}")

    def test_a_text_file_is_named(self, tmp_path: Path, suffix: str, read: Callable) -> None:
        (tmp_path / f"x{suffix}").write_text("This is not a picture.")
        with pytest.raises(DataError, match=rf"x\{suffix} is not a PNG, TIFF or JPEG"):
            read(tmp_path / f"x{suffix}")

    @pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
    def test_a_truncated_file_is_named(self, tmp_path: Path, suffix: str, read: Callable, share: float) -> None:
        path = self.written(tmp_path, suffix)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(DataError, match=rf"x\{suffix} is"):
            read(path)

    def test_a_missing_file_is_named(self, tmp_path: Path, suffix: str, read: Callable) -> None:
        with pytest.raises(DataError, match=rf"x\{suffix} cannot be read"):
            read(tmp_path / f"x{suffix}")

    def test_too_many_pixels_are_refused_before_decoding(
        self, tmp_path: Path, suffix: str, read: Callable, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = self.written(tmp_path, suffix)
        monkeypatch.setattr(readers, "MAX_PIXELS", 64 * 48 - 1)
        monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
        with pytest.raises(DataError, match="claims 48×64 pixels"):
            read(path)

    def test_the_format_is_told_by_the_content(self, tmp_path: Path, suffix: str, read: Callable) -> None:
        expected = np.eye(8, dtype=np.uint8) * 255
        cv2.imwrite(str(tmp_path / "x.png"), expected)
        path = (tmp_path / "x.png").rename(tmp_path / f"y{suffix}")
        assert (read(path) > 0).sum() == 8


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_keeps_grey_within_its_losses(tmp_path: Path, suffix: str, channels: int) -> None:
    expected = gradient(np.uint8)
    pixels = expected if channels == 1 else np.dstack([expected] * 3)
    cv2.imwrite(str(tmp_path / f"x{suffix}"), pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])
    frame = read_frame(tmp_path / f"x{suffix}")
    assert frame.dtype == np.uint8
    assert np.abs(frame.astype(int) - expected).max() <= 6


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_jpeg_mask_is_black_and_white_again(tmp_path: Path, suffix: str) -> None:
    expected = np.zeros((64, 64), np.uint8)
    expected[16:40, 24:48] = 1
    cv2.imwrite(str(tmp_path / f"x{suffix}"), expected * 255, [cv2.IMWRITE_JPEG_QUALITY, 90])
    np.testing.assert_array_equal(read_mask(tmp_path / f"x{suffix}"), expected)


@pytest.mark.parametrize("suffix", SOURCES)
@pytest.mark.parametrize("content", [b"", b"This is neither a picture nor a clip. " * 20])
def test_every_source_names_what_it_cannot_open(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"x{suffix}").write_bytes(content)
    with pytest.raises(DataError, match=rf"x\{suffix} (is|cannot be read)"):
        next(open_clip(tmp_path / f"x{suffix}").read())
