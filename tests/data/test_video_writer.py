"""What the writer writes, the reader reads; what goes wrong leaves nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from edgefusion.data.video import VideoFrames, open_video
from edgefusion.data.video_writer import VideoWriter, encoder
from edgefusion.errors import UsageError

RAMP = np.tile(np.repeat(np.arange(0, 256, 5, dtype=np.uint8), 3), (90, 1))


def write(path: Path, frames: list[NDArray[np.uint8]], times: list[float] | None = None, rate: float = 30) -> None:
    with VideoWriter(path, rate) as writer:
        for number, frame in enumerate(frames):
            writer.write(frame, times[number] if times else None)
        assert writer.count == len(frames)


@pytest.mark.parametrize("size", [(90, 152), (89, 151), (90, 151), (89, 152)])
@pytest.mark.parametrize("colour", [False, True])
def test_it_comes_back_padded_to_even_sizes(tmp_path: Path, size: tuple[int, int], colour: bool) -> None:
    frame = RAMP[: size[0], : size[1]]
    write(tmp_path / "x.mp4", [np.dstack([frame] * 3) if colour else frame] * 4)
    clip = open_video(tmp_path / "x.mp4")
    assert (clip.rate, clip.count) == (30, 4)
    for read in clip.read():
        assert read.shape == (90, 152)
        assert np.abs(read[: size[0], : size[1]].astype(int) - frame).max() <= 6


def test_outlines_keep_their_colour(tmp_path: Path) -> None:
    frame = np.full((90, 120, 3), 60, np.uint8)
    frame[20:60, 40:80] = (255, 0, 255)
    write(tmp_path / "x.mp4", [frame] * 2)
    with av.open(str(tmp_path / "x.mp4")) as container:
        colours = next(container.decode(video=0)).to_ndarray(format="rgb24")
    np.testing.assert_allclose(colours[40, 60], (255, 0, 255), atol=12)


@pytest.mark.parametrize("rate", [24000 / 1001, 25.0, 50.0, 7.3])
def test_frames_come_at_their_rate(tmp_path: Path, rate: float) -> None:
    write(tmp_path / "x.mp4", [RAMP] * 20, rate=rate)
    reader = open_video(tmp_path / "x.mp4").read()
    assert isinstance(reader, VideoFrames)
    assert [reader.time_s for _ in reader] == pytest.approx([n / rate for n in range(20)], abs=1e-4)


def test_frames_come_at_their_times(tmp_path: Path) -> None:
    times = [0.0, 0.02, 0.5, 0.5, 2.0]
    write(tmp_path / "x.mp4", [RAMP] * 5, times)
    reader = open_video(tmp_path / "x.mp4").read()
    assert isinstance(reader, VideoFrames)
    assert [reader.time_s for _ in reader] == pytest.approx(times, abs=1e-4)


def test_it_is_h264_where_an_encoder_is_there(tmp_path: Path) -> None:
    write(tmp_path / "x.mp4", [RAMP] * 2)
    with av.open(str(tmp_path / "x.mp4")) as container:
        stream: Any = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")


def test_without_one_it_is_mpeg4_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = av.Codec

    def without(name: str, mode: str) -> Any:
        if "264" in name:
            raise ValueError(name)
        return original(name, mode)

    monkeypatch.setattr(av, "Codec", without)
    assert encoder() == "mpeg4"
    write(tmp_path / "x.mp4", [RAMP] * 5)
    assert "No encoder for H.264" in capsys.readouterr().err
    monkeypatch.undo()
    frames = list(open_video(tmp_path / "x.mp4").read())
    assert len(frames) == 5
    assert np.abs(frames[3][:, :150].astype(int) - RAMP[:, :150]).mean() < 4


def _write_until(path: Path, error: type[BaseException]) -> None:
    with VideoWriter(path) as writer:
        writer.write(RAMP)
        raise error


def test_an_exception_leaves_what_was_there(tmp_path: Path) -> None:
    write(tmp_path / "x.mp4", [RAMP] * 2)
    before = (tmp_path / "x.mp4").read_bytes()
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error):
            _write_until(tmp_path / "x.mp4", error)
    with pytest.raises(UsageError, match="follows one of"):
        write(tmp_path / "x.mp4", [RAMP, RAMP[:50]])
    with pytest.raises(UsageError, match="at least one frame"):
        write(tmp_path / "x.mp4", [])
    assert (tmp_path / "x.mp4").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]
