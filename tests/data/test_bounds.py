from __future__ import annotations

import io
from pathlib import Path

import av
import pytest

from edgefusion.data import tiff_pages, video
from edgefusion.data.bounds import check_table
from edgefusion.data.dicom.video import Fragments, iter_video
from edgefusion.data.tiff_pages import count_directories
from edgefusion.errors import DataError


def test_a_table_of_many_frames_is_no_bomb() -> None:
    row = ",".join(["1_1"] * 13) + "\n"
    check_table(Path("frames.csv"), row * 200_000)


def test_a_table_whose_rows_are_not_filled_is_refused() -> None:
    check_table(Path("small.csv"), "," * 100 + "\n" + "a\n" * 100)
    with pytest.raises(DataError, match="do not fill"):
        check_table(Path("wide.csv"), "," * 2000 + "\n" + "a\n" * 2000)
    with pytest.raises(DataError, match="5001 columns"):
        check_table(Path("wide.csv"), "," * 5000 + "\n")


def _directory(following: int, order: str, big: bool) -> bytes:
    count, entry, offset = (8, 20, 8) if big else (2, 12, 4)
    return (1).to_bytes(count, order) + bytes(entry) + following.to_bytes(offset, order)  # type: ignore[arg-type]


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["little", "big"])
def test_pages_are_counted_in_both_orders_and_sizes(order: str, big: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    name = b"II" if order == "little" else b"MM"
    head = name + (43 if big else 42).to_bytes(2, order) + (bytes(4) if big else b"")  # type: ignore[arg-type]
    first = 16 if big else 8
    size = len(_directory(0, order, big))
    head += first.to_bytes(8 if big else 4, order)  # type: ignore[arg-type]
    pages = [first + size, first + 2 * size, 0]
    file = head + b"".join(_directory(following, order, big) for following in pages)
    assert count_directories(io.BytesIO(file)) == 3
    with pytest.raises(ValueError, match="cut off"):
        count_directories(io.BytesIO(file[:-1]))
    circle = head + b"".join(_directory(following, order, big) for following in [pages[0], first])
    with pytest.raises(ValueError, match="circle"):
        count_directories(io.BytesIO(circle))
    monkeypatch.setattr(tiff_pages, "MAX_PAGES", 2)
    with pytest.raises(OverflowError, match="more than 2 pages"):
        count_directories(io.BytesIO(file))


def test_fragments_read_as_one_file_from_any_place() -> None:
    content = bytes(range(200))
    fragments = [(0, 0), (3, 5), (20, 0), (50, 100), (10, 1)]
    joined = content[3:8] + content[50:150] + content[10:11]
    file = Fragments(io.BytesIO(content), fragments)
    assert io.BufferedReader(file).read() == joined
    for place in (0, 4, 5, 104, 105, 106, 300):
        file.seek(place)
        assert (file.read(7) or b"") == joined[place : place + 7][: 5 - place if place < 5 else 7][: 105 - place or 1]


def _film(path: Path) -> Path:
    """Four frames of 64×48 pixels."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(4):
            frame = av.VideoFrame(64, 48, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.pts = number
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def test_a_film_in_a_dicom_file_cannot_name_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = _film(tmp_path / "other.ts")
    monkeypatch.chdir(tmp_path)
    playlist = b"ffconcat version 1.0\nfile other.ts\n"
    with pytest.raises(av.FFmpegError):
        list(iter_video(io.BytesIO(playlist), [(0, len(playlist))], 48, 64))
    content = other.read_bytes()
    assert len(list(iter_video(io.BytesIO(content), [(0, len(content))], 48, 64))) == 4


def test_a_film_of_frames_of_too_many_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _film(tmp_path / "a.mp4")
    monkeypatch.setattr(video, "MAX_FRAME", 64 * 48 * 3 // 2)
    opened: list[dict[str, str]] = []
    genuine = av.open
    monkeypatch.setattr(av, "open", lambda *of, **how: opened.append(how["options"]) or genuine(*of, **how))
    video.open_video(path)
    # FFmpeg decodes frames while it looks what a file is: without this, of 16,000×16,000 pixels too.
    assert int(opened[0]["max_pixels"]) == video.MAX_PIXELS
    monkeypatch.setattr(video, "MAX_FRAME", 64 * 48 * 3 // 2 - 1)
    with pytest.raises(DataError, match="claims 64×48 pixels"):
        video.open_video(path)


def _limits_of_a_film_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first size passes the check; the decoder then meets frames that are larger than allowed."""
    limits = iter([64 * 48, 64 * 48 - 1])
    monkeypatch.setattr(video, "most_pixels", lambda stream: next(limits))


def test_the_decoder_of_a_film_knows_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg refuses a larger frame before it takes the memory."""
    clip = video.open_video(_film(tmp_path / "a.mp4"))
    assert len(list(clip.read())) == 4
    _limits_of_a_film_that_grows(monkeypatch)
    with pytest.raises(DataError, match="no frame of it can be decoded"):
        list(clip.read())


def test_the_decoder_of_a_film_in_a_dicom_file_knows_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = _film(tmp_path / "a.ts").read_bytes()
    opened: list[dict[str, str]] = []
    genuine = av.open
    monkeypatch.setattr(av, "open", lambda *of, **how: opened.append(how["options"]) or genuine(*of, **how))
    _limits_of_a_film_that_grows(monkeypatch)
    with pytest.raises(av.FFmpegError):
        list(iter_video(io.BytesIO(content), [(0, len(content))], 48, 64))
    assert int(opened[0]["max_pixels"]) == video.MAX_PIXELS
