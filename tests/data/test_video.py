"""Videos come in grey level by grey level, frame by frame, and what is damaged is left out and said."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgefusion.data import video
from edgefusion.data.sources import open_clip
from edgefusion.data.video import SUFFIXES, VideoFrames, open_video
from edgefusion.errors import DataError

Frame = NDArray[np.uint8]

RAMP: Frame = np.tile(np.repeat(np.arange(0, 256, 5, dtype=np.uint8), 3), (96, 1))[:, :152].copy()

CODECS = {".gif": ("gif", "pal8"), ".webm": ("libvpx", "yuv420p"), ".avi": ("mpeg4", "yuv420p")}


def moving(count: int) -> list[Frame]:
    """Speckle-like frames that move; each tells its number by the brightness of a bar."""
    noise = np.random.default_rng(0).normal(size=(96, 152)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    base = np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    frames = [np.roll(base, 2 * n, 1) for n in range(count)]
    for number, frame in enumerate(frames):
        frame[:16] = 20 + 4 * (number % 50)
    return frames


def encode(
    path: Path,
    frames: Sequence[Frame],
    pixels: str = "yuv420p",
    full_range: bool = False,
    times: Sequence[float] | None = None,
    codec: str = "libx264",
    **options: str,
) -> Path:
    """Write frames with PyAV, not with our own writer."""
    codec, pixels = CODECS.get(path.suffix, (codec, pixels))
    container_options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=container_options) as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape
        stream.pix_fmt = "rgb8" if pixels == "pal8" else pixels
        stream.options = {"crf": "1"} | options if codec == "libx264" else options
        if times:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="gray")
            if stream.pix_fmt.endswith("10le"):
                # Straight from grey, FFmpeg now and then reads what it has not written.
                picture = picture.reformat(format="yuv420p")
            picture = picture.reformat(format=stream.pix_fmt, dst_color_range=2 if full_range else None)
            if times:
                picture.pts, picture.time_base = round(1000 * times[number]), stream.codec_context.time_base
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("pixels", "full_range"),
    [("yuv420p", False), ("yuvj420p", True), ("yuv444p", False), ("yuv420p10le", False)],
)
def test_grey_levels_come_back_at_full_range(tmp_path: Path, pixels: str, full_range: bool) -> None:
    path = encode(tmp_path / "x.mp4", [RAMP] * 3, pixels, full_range)
    for frame in open_video(path).read():
        assert frame.dtype == np.uint8
        assert np.abs(frame.astype(int) - RAMP).max() <= 3
        # Taken for the other range, black and white would be 16 levels off.
        assert frame.min() <= 1
        assert int(frame.max()) == pytest.approx(250, abs=3)


def test_grey_that_is_declared_limited_is_stretched() -> None:
    limited = np.rint(16 + RAMP * (219 / 255)).astype(np.uint8)
    picture = av.VideoFrame.from_ndarray(limited, format="gray")
    picture.color_range = 1
    assert np.abs(video._as_grey(picture).astype(int) - RAMP).max() <= 1
    picture.color_range = 2
    np.testing.assert_array_equal(video._as_grey(picture), limited)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_container_gives_its_frames_in_order(tmp_path: Path, suffix: str) -> None:
    frames = moving(30)
    clip = open_clip(encode(tmp_path / f"x{suffix}", frames))
    assert clip.rate == pytest.approx(25, rel=0.02)
    assert clip.count in (30, None)
    got = list(clip.read())
    assert len(got) == 30
    bars = [int(np.median(frame[2:14])) for frame in got]
    expected = [int(frame[0, 0]) for frame in frames]
    # A GIF of eight levels of red and green is that coarse.
    assert np.abs(np.subtract(bars, expected)).max() <= (25 if suffix == ".gif" else 5)


def test_reading_starts_over_each_time_and_closing_early_is_fine(tmp_path: Path) -> None:
    clip = open_video(encode(tmp_path / "x.mp4", moving(10)))
    reader = clip.read()
    first = next(reader)
    assert isinstance(reader, VideoFrames)
    reader.close()
    np.testing.assert_array_equal(next(clip.read()), first)


def test_times_of_a_variable_rate_are_kept(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.2, 0.21, 1.5]
    path = encode(tmp_path / "x.mkv", moving(5), times=times)
    reader = open_video(path).read()
    assert isinstance(reader, VideoFrames)
    assert [reader.time_s for _ in reader] == pytest.approx(times, abs=0.002)


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_a_clip_that_was_held_sideways_is_turned(tmp_path: Path, matrix: tuple[int, int, int, int], turns: int) -> None:
    path = encode(tmp_path / "x.mp4", [RAMP] * 2)
    upright = next(open_video(path).read())
    content = bytearray(path.read_bytes())
    # ISO 14496-12, 8.3.2: the track header's matrix {a, b, u, c, d, v, x, y, w} follows 44 bytes after the name.
    at = content.index(b"tkhd") + 44
    a, b, c, d = (value * 65536 for value in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    np.testing.assert_array_equal(next(open_video(path).read()), np.rot90(upright, turns))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_clip_that_was_cut_off_gives_what_is_there_and_says_so(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = moving(100)
    path = encode(tmp_path / f"x{suffix}", frames, threads="2")  # how it spreads its bytes depends on them
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    got = list(open_video(path).read())
    assert 30 < len(got) < 70
    for frame, expected in zip(got, frames, strict=False):
        assert int(np.median(frame[2:14])) == pytest.approx(int(expected[0, 0]), abs=5)
    assert "was cut off" in capsys.readouterr().err


def test_damage_is_left_out_up_to_the_next_key_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = moving(90)
    path = encode(tmp_path / "x.mp4", frames, g="15", keyint_min="15", bf="0")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = np.random.default_rng(1).bytes(400)
    path.write_bytes(content)
    reader = open_video(path).read()
    assert isinstance(reader, VideoFrames)
    got = {round(25 * reader.time_s): frame for frame in reader}
    assert 1 <= reader.lost <= 30
    assert len(got) + reader.lost == 90
    assert f"{reader.lost} frames" in capsys.readouterr().err
    assert max(got) == 89
    for number, frame in got.items():
        assert np.abs(frame.astype(int) - frames[number]).mean() < 3


def _sound(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = container.add_stream("aac", rate=8000)
        stream.layout = "mono"
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))


def _picture(path: Path) -> None:
    path.write_bytes(cv2.imencode(".png", RAMP)[1].tobytes())


def _headless(path: Path) -> None:
    # This one has its index at the end.
    content = encode(path.with_suffix(".mov"), moving(30)).read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b""), r"is empty \(0 bytes\)"),
        (lambda path: path.write_text("This is not a video.\n" * 50), "is not a video"),
        (lambda path: path.write_text("#EXTM3U\n#EXTINF:5,\nfile:///etc/passwd\n"), "is not a video"),
        (lambda path: path.write_text("ffconcat version 1.0\nfile /etc/passwd\n"), "is not a video"),
        (_picture, "is not a video"),
        (_headless, "is not a video"),
        (_sound, r"no pictures \(it holds audio\)"),
        (lambda _: None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_video_is_named(tmp_path: Path, spoil: Any, message: str) -> None:
    spoil(tmp_path / "x.mp4")
    with pytest.raises(DataError, match=rf"x\.mp4.*{message}"):
        open_clip(tmp_path / "x.mp4")


def test_what_is_too_large_or_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "x.mp4", moving(10))
    monkeypatch.setattr(video, "MAX_PIXELS", 96 * 152 - 1)
    with pytest.raises(DataError, match="claims 152×96 pixels"):
        open_video(path)
    monkeypatch.undo()
    monkeypatch.setattr(video, "MAX_HOURS", 0.3 / 3600)
    with pytest.raises(DataError, match="hours"):
        open_video(path)


def test_a_change_of_size_is_named(tmp_path: Path) -> None:
    # Two raw H.264 streams one after the other are one stream that changes.
    parts = [encode(tmp_path / f"{n}.ts", [np.full((96, w), 99, np.uint8)] * 3) for n, w in enumerate((152, 120))]
    (tmp_path / "x.mpg").write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(DataError, match="changes its size from 152×96 to 120×96"):
        list(open_video(tmp_path / "x.mpg").read())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pages_of_a_tiff_are_a_clip(tmp_path: Path, dtype: Any) -> None:
    pages = [(frame.astype(dtype) * (257 if dtype == np.uint16 else 1)) for frame in moving(5)]
    assert cv2.imwritemulti(str(tmp_path / "x.tif"), pages)
    clip = open_clip(tmp_path / "x.tif")
    assert (clip.count, clip.rate) == (5, None)
    for frame, page in zip(clip.read(), pages, strict=True):
        assert frame.dtype == dtype
        np.testing.assert_array_equal(frame, page)


def test_pages_that_differ_in_size_or_are_cut_off_are_named(tmp_path: Path) -> None:
    cv2.imwritemulti(str(tmp_path / "x.tif"), [RAMP, RAMP[:50]])
    with pytest.raises(DataError, match=r"Page 2 of .*x\.tif has another size"):
        list(open_clip(tmp_path / "x.tif").read())
    cv2.imwritemulti(str(tmp_path / "y.tif"), moving(4), [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    content = bytearray((tmp_path / "y.tif").read_bytes())
    content[8:4000] = bytes(3992)
    (tmp_path / "y.tif").write_bytes(content[: len(content) - 20])
    with pytest.raises(DataError, match=r"y\.tif"):
        list(open_clip(tmp_path / "y.tif").read())


def test_a_picture_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    _picture(tmp_path / "x.png")
    clip = open_clip(tmp_path / "x.png")
    assert (clip.count, clip.rate) == (1, None)
    np.testing.assert_array_equal(next(clip.read()), RAMP)
