"""A hundred uploads that are not what they should be: each is refused in words, and memory stays bounded."""

from __future__ import annotations

import io
import os
import re
import signal
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

GROWTH_MB = 300
"""What the server's greatest memory may grow by; a single bomb here would take gigabytes."""


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, rows: bytes | None = None, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG whose header claims a size, with as many bytes of pixels as one cares to give."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = zlib.compress(bytes(height * (width + 1)) if rows is None else rows)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _tiff(entries: list[tuple[int, int, int]], tail: bytes = b"") -> bytes:
    """A little-endian TIFF with entries (tag, type, value) of one value each."""
    fields = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + fields + b"\0\0\0\0" + tail


def _dicom(rows: int, columns: int, frames: int = 1, pixels: bytes = b"\0\0") -> bytes:
    def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        long = kind in (b"OW", b"OB")
        length = struct.pack("<HI", 0, len(value)) if long else struct.pack("<H", len(value))
        return struct.pack("<HH", group, number) + kind + length + value

    meta = element(2, 2, b"UI", b"1.2.840.10008.5.1.4.1.1.6.1") + element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1")
    data = element(8, 0x16, b"UI", b"1.2.840.10008.5.1.4.1.1.6.1")
    for number, value in ((2, 1), (0x10, rows), (0x11, columns), (0x100, 8), (0x101, 8), (0x102, 7), (0x103, 0)):
        data += element(0x28, number, b"US", struct.pack("<H", value))
        if number == 2:
            data += element(0x28, 4, b"CS", b"MONOCHROME2") + element(0x28, 8, b"IS", str(frames).encode())
    return b"\0" * 128 + b"DICM" + meta + data + element(0x7FE0, 0x10, b"OW", pixels)


def _zip() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("frame.png", bytes(20_000_000))
    return packed.getvalue()


def _bad() -> dict[str, bytes]:
    noise = np.random.default_rng(0)
    frame = noise.integers(0, 255, (64, 96), np.uint8)
    png, jpeg, tiff = (cv2.imencode(suffix, frame)[1].tobytes() for suffix in (".png", ".jpg", ".tif"))
    size = [(256, 4, 96), (257, 4, 64), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 200), (277, 3, 1), (278, 4, 64)]
    bad = {
        "empty": b"",
        "one byte": b"\x89",
        "text": b"a frame of the neck",
        "html": b"<!doctype html><script>alert(1)</script>",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "xml bomb": b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><l>&b;</l>',
        "zip bomb": _zip(),
        "gzip": b"\x1f\x8b\x08\0" + bytes(100),
        "pdf": b"%PDF-1.7\n%%EOF",
        "elf": b"\x7fELF" + bytes(200),
        "pickle": b"\x80\x04\x95" + bytes(100),
        "playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "bmp": cv2.imencode(".bmp", frame)[1].tobytes(),
        "webp": cv2.imencode(".webp", frame)[1].tobytes(),
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "100k wide": _png(100_000, 64),
        "100k high": _png(64, 100_000),
        "bomb of 30000 x 30000": _png(30_000, 30_000, bytes(1_000_000)),
        "bomb that is whole": _png(12_000, 12_000),
        "bomb of 16 bits": _png(20_000, 20_000, bytes(1_000_000), 16, 2),
        "no width": _png(0, 64, b""),
        "one pixel": _png(1, 1),
        "negative width": _png(2**32 - 1, 64, b""),
        "unknown colour": _png(64, 64, None, 8, 5),
        "wrong sum": png[:40] + bytes([png[40] ^ 255]) + png[41:],
        "text chunk bomb": png[:33] + _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000))) + png[33:200],
        "profile bomb": png[:33] + _chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(50_000_000))) + png[33:200],
        "two heads": png[:8] + png[:100],
        "jpeg of 65500": jpeg[:100].replace(struct.pack(">HH", 64, 96), struct.pack(">HH", 65_500, 65_500))
        + jpeg[100:],
        "jpeg without pixels": jpeg[:20] + b"\xff\xd9",
        "jpeg head": b"\xff\xd8\xff\xe0" + bytes(500),
        "tiff bomb": _tiff([(256, 4, 60_000), (257, 4, 60_000), *size[2:]], bytes(200)),
        "tiff wide": _tiff([(256, 4, 100_000), *size[1:]], bytes(200)),
        "tiff beyond its end": _tiff([*size[:5], (273, 4, 2**31), *size[6:]], bytes(200)),
        "tiff loop": b"II*\0" + struct.pack("<IHI", 8, 0, 8),
        "tiff without tags": _tiff([]),
        "tiff of 32 bits": _tiff([*size[:2], (258, 3, 32), *size[3:]], bytes(200)),
        "big-endian nothing": b"MM\0*" + bytes(100),
        "dicom head": bytes(128) + b"DICM",
        "dicom of noise": bytes(128) + b"DICM" + noise.bytes(5000),
        "dicom bomb": _dicom(65_535, 65_535),
        "dicom cine bomb": _dicom(512, 512, 2_000_000_000),
        "dicom without pixels": _dicom(64, 96, 1, b""),
        "dicom of no rows": _dicom(0, 0),
        "dicom too short": _dicom(64, 96, 4, bytes(64 * 96)),
        "mp4 head": struct.pack(">I", 24) + b"ftypisom" + bytes(12),
        "mp4 of noise": struct.pack(">I", 24) + b"ftypisom" + noise.bytes(5000),
        "mp4 of endless box": struct.pack(">I", 24) + b"ftypisom" + bytes(12) + b"\xff\xff\xff\xffmdat",
        "avi head": b"RIFF\xff\xff\xff\x7fAVI LIST" + bytes(100),
        "matroska head": b"\x1a\x45\xdf\xa3" + noise.bytes(3000),
        "gif bomb": b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b";",
        "gif head": b"GIF87a",
    }
    # A file may end anywhere, and bits may fall over anywhere in what keeps it together.
    for cut in (9, 20, 33, 50, 100, 500, 2000):
        bad |= {f"png of {cut} bytes": png[:cut], f"tiff of {cut} bytes": tiff[:cut]}
    for cut in (3, 20, 100, 200, 300):
        bad[f"jpeg of {cut} bytes"] = jpeg[:cut]
    for spot in range(8, 33, 1):
        bad[f"png broken at {spot}"] = png[:spot] + bytes([png[spot] ^ 0x55]) + png[spot + 1 :]
    for seed in range(5):
        bad[f"noise {seed}"] = np.random.default_rng(seed + 1).bytes(3000)
    return bad


@pytest.fixture(scope="module")
def process() -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "edgefusion", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as started:
        yield started
        if started.poll() is None:
            started.send_signal(signal.SIGINT)
            assert started.wait(20) == 0


@pytest.fixture(scope="module")
def client(process: subprocess.Popen[str]) -> Iterator[httpx.Client]:
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert found, line
    with httpx.Client(base_url=found[0], timeout=60) as opened:
        yield opened


def _peak_mb(process: subprocess.Popen[str]) -> float:
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        pytest.skip("the memory of another process is read from /proc, which only Linux has")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    assert found
    return int(found[1]) / 1024


def test_bad_uploads_are_refused_in_words(process: subprocess.Popen[str], client: httpx.Client) -> None:
    bad = _bad()
    assert len(bad) >= 100
    frame = cv2.imencode(".png", np.tile(np.arange(0, 200, 2, np.uint8), (80, 1)))[1].tobytes()
    headers = {"content-type": "application/octet-stream"}
    # The first predictions load what is loaded once.
    assert client.post("/v1/predict", content=frame, headers=headers).status_code == 200
    before = _peak_mb(process)
    for name, body in bad.items():
        response = client.post("/v1/predict", content=body, headers=headers)
        assert 400 <= response.status_code < 500, f"{name}: {response.status_code} {response.text}"
        message = response.json()["error"]["message"]
        assert len(message) > 20, name
        assert "/tmp" not in message, name
        assert client.post("/v1/sessions", files={"file": body}).status_code == response.status_code, name
    assert client.post("/v1/predict", content=frame, headers=headers).status_code == 200
    assert _peak_mb(process) - before < GROWTH_MB


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "multipart/form-data"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "text/plain"},
        {"content-type": "nonsense"},
        {"content-type": "image/svg+xml", "content-length": "5"},
    ],
)
def test_bad_forms_are_refused(client: httpx.Client, headers: dict[str, str]) -> None:
    for body in (
        b"hello",
        b"--x\r\n\r\n",
        b"--x\r\ncontent-disposition: form-data; name=file\r\n\r\nhello\r\n--x--\r\n",
    ):
        response = client.post("/v1/predict", content=body[: int(headers.get("content-length", 1000))], headers=headers)
        assert 400 <= response.status_code < 500
        assert response.json()["error"]["message"]
