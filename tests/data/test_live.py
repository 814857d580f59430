"""Live sources, served on the loopback: frames come as they are sent, and the end is clear."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from edgefusion.data.live import LiveFrames, is_live, open_live, public_name
from edgefusion.errors import DataError, UsageError


def encode(target: str, container_format: str, numbers: Iterator[int], pause_s: float = 0.0) -> None:
    """Send frames whose brightness is their number, 96×152, as MPEG-TS or another format."""
    with av.open(target, "w", format=container_format) as container:
        stream: Any = container.add_stream("libx264", rate=50)
        stream.width, stream.height, stream.pix_fmt = 152, 96, "yuv420p"
        stream.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "10"}
        for number in numbers:
            grey = np.full((96, 152), 20 + number % 200, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="gray").reformat(format="yuv420p")))
            time.sleep(pause_s)
        container.mux(stream.encode(None))


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def sender(port: int) -> Iterator[Callable[[], None]]:
    """MPEG-TS over UDP, until it is stopped."""
    stop = threading.Event()
    numbers = iter(range(10_000))
    endless = iter(lambda: None if stop.is_set() else next(numbers), None)
    target = f"udp://127.0.0.1:{port}?pkt_size=1316"
    thread = threading.Thread(target=encode, args=(target, "mpegts", endless, 0.01))
    thread.start()
    try:
        yield stop.set
    finally:
        stop.set()
        thread.join()


def test_a_stream_over_udp_comes_as_it_is_sent_and_ends_clearly(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    levels = []
    with sender(port) as stop, open_live(f"udp://127.0.0.1:{port}", timeout_s=2, patience_s=0.4) as live:
        assert live.rate == pytest.approx(50)
        for frame in live:
            assert frame.shape == (96, 152)
            assert frame.dtype == np.uint8
            assert np.ptp(frame) <= 2
            levels.append(int(frame[0, 0]))
            if len(levels) == 30:
                assert 0 < live.time_s < 20  # by the clock: what was buffered comes at once
                stop()
    assert 30 <= len(levels) < 300
    steps = np.diff(levels)
    assert ((steps >= 0) | (steps < -150)).all()
    assert "no frame came for 0.4 s" in live.ended
    assert f"udp://127.0.0.1:{port}: no frame came" in capsys.readouterr().err


class Server:
    """Serves one file over HTTP; the first answers may break off in the middle."""

    def __init__(self, content: bytes, broken: int = 0) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "video/mp2t")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                share = 2 if outer.broken > 0 else 1
                outer.broken -= 1
                self.wfile.write(content[: len(content) // share])

            def log_message(self, *_: Any) -> None:
                pass

        self.broken = broken
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://user:secret@127.0.0.1:{self.server.server_address[1]}/x.ts"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))

    def __enter__(self) -> Server:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    encode(str(tmp_path / "x.ts"), "mpegts", iter(range(60)))
    return (tmp_path / "x.ts").read_bytes()


def test_a_stream_over_http_gives_every_frame(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    with Server(content) as server, open_live(server.url) as live:
        levels = [int(frame[0, 0]) for frame in live]
    assert len(levels) == 60
    assert np.abs(np.array(levels) - (20 + np.arange(60))).max() <= 2
    assert live.ended == "the stream has ended"
    assert live.reconnects == 0
    said = capsys.readouterr().err
    assert "127.0.0.1" in said
    assert "secret" not in said


def test_what_breaks_off_is_opened_again(content: bytes) -> None:
    with Server(content, broken=1) as server, open_live(server.url, patience_s=3) as live:
        count = sum(1 for _ in live)
    assert live.reconnects == 1
    assert 60 + 20 <= count < 120
    assert live.ended == "the stream has ended"


def test_what_stays_away_ends(content: bytes) -> None:
    with Server(content, broken=10**9) as server:
        live = open_live(server.url, timeout_s=1, patience_s=0.3)
        next(live)
    # Now nobody answers any more.
    assert sum(1 for _ in live) >= 20
    assert live.ended.startswith("no frame came for 0.3 s")
    assert list(live) == []


def test_closing_early_is_fine(content: bytes) -> None:
    with Server(content) as server:
        live = open_live(server.url)
        next(live)
        live.close()
        live.close()
        assert list(live) == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("rtsp://user:secret@127.0.0.1:9/x", "Connection refused"),
        ("http://127.0.0.1:9/x", "Connection refused"),
        ("/dev/video97", "No such file"),
        ("udp://127.0.0.1:FREE", "does not answer"),
    ],
)
def test_what_is_not_there_is_named_in_time(url: str, reason: str) -> None:
    url = url.replace("FREE", str(free_port()))
    started = time.monotonic()
    with pytest.raises(DataError, match=reason) as caught:
        open_live(url, timeout_s=0.3)
    assert time.monotonic() - started < 5
    assert public_name(url) in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_is_no_video_is_named() -> None:
    with Server(b"This is a text.\n" * 1000) as server, pytest.raises(DataError):
        open_live(server.url, timeout_s=1)


def test_addresses_are_told_from_files() -> None:
    for url in ("rtsp://a/b", "udp://@239.0.0.1:5000", "HTTP://a", "/dev/video0", "/dev/video12"):
        assert is_live(url)
    for path in ("clip.mp4", "/data/clip.mp4", "/dev/video", "/dev/videos/1", "file:///x", "udp", "C:\\x.mp4"):
        assert not is_live(path)
        with pytest.raises(UsageError, match="no live source"):
            open_live(path)


def test_a_name_and_password_are_not_shown() -> None:
    assert public_name("rtsp://me:pw@host:554/a?b=c") == "rtsp://host:554/a?b=c"
    assert public_name("udp://@239.0.0.1:5000") == "udp://239.0.0.1:5000"
    assert public_name("/dev/video0") == "/dev/video0"


def test_another_size_after_coming_back_is_named(content: bytes) -> None:
    with Server(content) as server:
        live: LiveFrames = open_live(server.url)
        next(live)
        live._shape = (1, 1)
        with pytest.raises(DataError, match="another size"):
            next(live)
        live.close()
