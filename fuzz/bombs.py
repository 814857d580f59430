"""Small files that ask for much, which limits must meet before anything is decoded: ``python fuzz/bombs.py``."""

from __future__ import annotations

import io
import json
import os
import resource
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import nibabel
import numpy as np
import seeds
from PIL import Image
from pydicom.uid import MPEG4HP41, DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from edgefusion.data.readers import MAX_PIXELS

SIDE = 65_500
"""Pixels a side that most formats can claim."""

BYTES = 1_000_000
"""About the size of a bomb at most."""


def _png(width: int, height: int, colour_type: int, bits: int, lines: int | None = None) -> bytes:
    """A PNG of zeros, of which so many lines are there, and the first pixels have a colour."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type] * bits // 8
    packer = zlib.compressobj(9)
    line = packer.compress(b"\0\x01\x02\x03" + bytes(width * samples - 3))
    rest = [packer.compress(bytes(1 + width * samples)) for _ in range((height if lines is None else lines) - 1)]
    head = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    content = line + b"".join(rest) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def _tiff(width: int, height: int, **tags: int) -> bytes:
    """A TIFF of one strip of zeros, deflated as far as 1 MB goes."""
    bits, samples = tags.get("bits", 8), tags.get("samples", 3)
    # What is refused is refused before its pixels are looked for.
    raw = width * height * samples * bits // 8 if width * height <= MAX_PIXELS else 1_000_000
    packer = zlib.compressobj(9)
    block = bytes(10_000_000)
    parts = [packer.compress(b"\1\2\3")] + [
        packer.compress(block[: min(len(block), raw - at)]) for at in range(0, raw, len(block))
    ]
    strip = (b"".join(parts) + packer.flush())[:BYTES]
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, 8),
        (262, 3, 1, 2 if samples >= 3 else 1), (273, 4, 1, 8), (277, 3, 1, samples), (278, 4, 1, height),
        (279, 4, 1, len(strip)),
    ]  # fmt: skip
    if samples > 1:
        entries[2] = (258, 3, samples, 8 + len(strip))
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    body = strip + struct.pack(f"<{samples}H", *[bits] * samples)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory


def _tiff_pages() -> bytes:
    """One page of a pixel, and as many of nothing as 1 MB holds."""
    entries = [(256, 4, 1, 1), (257, 4, 1, 1), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 4), (279, 4, 1, 1)]
    first = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    parts, at = [b"II*\0" + struct.pack("<I", 8) + first], 8 + len(first) + 4
    while at < BYTES:
        parts.append(struct.pack("<IHHHII", at, 1, 256, 4, 1, 1))
        at += 18
    return b"".join(parts) + bytes(4)


def _jpeg(width: int, height: int, scans: int = 1) -> bytes:
    """A progressive JPEG whose frame is as large as it says, with scans that hold nothing but an end of band."""
    small = io.BytesIO()
    Image.new("L", (16, 16), 7).save(small, "JPEG", progressive=True)
    content = bytearray(small.getvalue())
    frame = content.index(b"\xff\xc2")
    content[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    scan = content.rindex(b"\xff\xda")
    last = bytes(content[scan:-2])
    return bytes(content[:-2]) + last * (scans - 1) + b"\xff\xd9"


def _dicom(
    syntax: str, fragments: list[bytes], rows: int, columns: int, frames: int = 1, colour: bool = False
) -> bytes:
    shape = (1, 2, 2, 3) if colour else (1, 2, 2)
    dataset = seeds.ultrasound(np.zeros(shape, np.uint8))
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = rows, columns, frames
    return seeds.encapsulated(dataset, syntax, fragments)


def _jpeg2000(side: int, colour: bool) -> bytes:
    """A codestream of a small picture that claims to be large (ISO/IEC 15444-1, A.5.1)."""
    shape = (1, 32, 32, 3) if colour else (1, 32, 32)
    file = seeds.saved(seeds.ultrasound(np.zeros(shape, np.uint8)), JPEG2000Lossless)
    content = bytearray(file[file.index(b"\xff\x4f\xff\x51") :])
    for at in (8, 24):  # picture and tile
        content[at : at + 8] = struct.pack(">II", side, side)
    return bytes(content)


def _deflated(elements: int) -> bytes:
    """A deflated file that unpacks to very many elements."""
    content = seeds.saved(seeds.ultrasound(np.zeros((1, 2, 2), np.uint8)), DeflatedExplicitVRLittleEndian)
    start = 132 + 12 + int.from_bytes(content[140:144], "little")
    packer = zlib.compressobj(1, wbits=-15)
    block = b"".join(struct.pack("<HH2sH", 0x0011, number, b"LO", 0) for number in range(0x1000, 0x2000))
    parts = [packer.compress(block) for _ in range(elements // 4096)]
    return content[:start] + b"".join(parts) + packer.flush()


def _elements() -> bytes:
    head = bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, 26)
    head += struct.pack("<HH2sH", 2, 0x10, b"UI", 18) + b"1.2.840.10008.1.2\0"
    # Implicit elements of no bytes.
    many = b"".join(struct.pack("<HHI", 0x0009 + 2 * (n >> 16), n & 0xFFFF, 0) for n in range(BYTES // 8))
    return head + struct.pack("<HHI", 8, 0x16, 0) + many


def _sequences() -> bytes:
    head = _elements()[: 128 + 4 + 12 + 26]
    depth = BYTES // 16
    return head + struct.pack("<HHIHHI", 0x0008, 0x1140, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF) * depth


def _many_fragments() -> bytes:
    """A video in fragments of two bytes."""
    content = seeds.one_video("mpegts", "libx264")
    content *= BYTES // 5 // len(content)
    parts = [content[at : at + 2] for at in range(0, len(content), 2)]
    return _dicom(MPEG4HP41, parts, seeds.HEIGHT, seeds.WIDTH, colour=True)


def _names() -> bytes:
    dataset = seeds.ultrasound(np.zeros((1, 2, 2), np.uint8))
    dataset.OtherPatientNames = "^".join(f"a{number:07d}" for number in range(55_000))
    dataset.AdditionalPatientHistory = "a000000 " * 55_000
    return seeds.saved(dataset, "1.2.840.10008.1.2")


def _rle(side: int) -> bytes:
    header = struct.pack("<16I", 1, 64, *[0] * 14)
    plain = side * side
    return header + b"\x81\x00" * (plain // 128)


def _video(container: str, codec: str, side: tuple[int, int], frames: int, **options: str) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=25, options={"preset": "ultrafast", **options})
        stream.width, stream.height, stream.pix_fmt = *side, "yuv420p"
        picture = av.VideoFrame(*side, "yuv420p")
        for plane in picture.planes:
            plane.update(bytes(plane.buffer_size))
        for number in range(frames):
            picture.pts = number
            file.mux(stream.encode(picture))
        file.mux(stream.encode())
    return buffer.getvalue()


def _video_in_dicom() -> bytes:
    content = _video("mpegts", "libx264", (7680, 4320), 24, refs="16", bf="0")
    return _dicom(MPEG4HP41, [content], 4320, 7680, 24, colour=True)


def _mjpeg_scans() -> bytes:
    """One picture of very many scans, as a film."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="avi") as file:
        stream = file.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 4096, 4096, "yuvj420p"
        packet = av.Packet(_jpeg(4096, 4096, 50_000))
        packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, 0, 0, True
        file.mux(packet)
    return buffer.getvalue()


def _mjpeg_in_avi() -> bytes:
    content = bytearray(seeds.one_video("avi", "mjpeg"))
    at = -1
    while (at := content.find(b"\xff\xc0\0\x11\x08", at + 1)) > 0:
        content[at + 5 : at + 9] = struct.pack(">HH", 16_000, 16_000)
    return bytes(content)


def _gif(side: int) -> bytes:
    image = io.BytesIO()
    Image.new("L", (8, 8)).save(image, "GIF")
    content = bytearray(image.getvalue())
    content[6:10] = struct.pack("<HH", side, side)
    return bytes(content)


def _nifti(columns: int, rows: int, frames: int, kind: np.typing.DTypeLike, content: int) -> bytes:
    """A compressed NIfTI file of zeros."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(kind)
    header["dim"] = [3, columns, rows, frames, 1, 1, 1, 1]
    header["vox_offset"], header["magic"] = 352, b"n+1"
    packer = zlib.compressobj(9, wbits=31)
    block = bytes(1_000_000)
    parts = [packer.compress(header.binaryblock + bytes(4))]
    parts += [packer.compress(block) for _ in range(content // len(block))]
    return b"".join(parts) + packer.flush()


def _laughs(kind: str) -> bytes:
    lines = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    return ("\n".join(lines) + f"\nname: a\n{kind}: *a9\n").encode()


def _wide_table(header: str = "") -> bytes:
    return (header + "," * (BYTES // 2) + "\n" + "a\n" * (BYTES // 4)).encode()


STUDY = "frame_id,patient_id,image,mask,height,width,spacing_row_mm,spacing_col_mm,sha256,group,area_px,source,clean"
RECORD = "input,name,status,reason,formats,spacing_mm,input_sha256,made_by"


def _folds() -> bytes:
    fold = {"train": ["1"], "validation": ["2"], "excluded_frames": []}
    return json.dumps({"splits": [{"name": str(n), **fold} for n in range(16_000)]}).encode()


@dataclass(frozen=True)
class Bomb:
    """A small file that asks for much.

    Attributes:
        reader: Name of the reader that gets it.
        make: Makes its content.
        refused: Part of the answer; empty where it stays just below the limits and is read.
        slow: Whether it takes seconds to make, too long for a test.
    """

    reader: str
    make: Callable[[], bytes]
    refused: str = ""
    slow: bool = False


BOMBS: dict[str, Bomb] = {
    "png-gigapixels": Bomb("png", lambda: _png(SIDE, SIDE, 0, 8, lines=2), "claims more than"),
    "png-64-megapixels": Bomb("png", lambda: _png(8192, 8192, 6, 16, lines=2), "claims 8192×8192 pixels"),
    "png-deep-colours": Bomb("png", lambda: _png(8192, 4096, 6, 16)),
    "png-colours": Bomb("png", lambda: _png(8192, 4096, 2, 8)),
    "tiff-gigapixels": Bomb("tiff", lambda: _tiff(SIDE, SIDE), "claims more than"),
    "tiff-64-megapixels": Bomb("tiff", lambda: _tiff(8192, 8192), "claims 8192×8192 pixels"),
    "tiff-deep-colours": Bomb("tiff", lambda: _tiff(8192, 4096, bits=16)),
    "tiff-samples": Bomb("tiff", lambda: _tiff(64, 64, samples=60), "damaged"),
    "tiff-pages": Bomb("tiff", _tiff_pages, "more than 10000 pages"),
    "jpeg-gigapixels": Bomb("jpeg", lambda: _jpeg(SIDE, SIDE), "claims more than"),
    "jpeg-32-megapixels": Bomb("jpeg", lambda: _jpeg(8192, 4096)),
    "jpeg-scans": Bomb("jpeg", lambda: _jpeg(8192, 4096, scans=50_000), "more than 100 scans"),
    "dicom-deflated": Bomb("dicom", lambda: _deflated(1_000_000), "too many elements"),
    "dicom-elements": Bomb("dicom", _elements, "too many elements"),
    "dicom-sequences": Bomb("dicom", _sequences, "recursion"),
    "dicom-header-elements": Bomb("dicom-header", _elements, "too many elements", slow=True),
    "dicom-header-names": Bomb("dicom-header", _names, "more than 500 names"),
    "dicom-frames": Bomb("dicom", lambda: _dicom(RLELossless, [_rle(64)], 64, 64, 2**31 - 1), "ends after 1 of"),
    "dicom-jpeg-scans": Bomb(
        "dicom", lambda: _dicom(JPEGBaseline8Bit, [_jpeg(8192, 4096, 50_000)], 4096, 8192), "more than 100 scans"
    ),
    "dicom-jpeg": Bomb("dicom", lambda: _dicom(JPEGBaseline8Bit, [_jpeg(8192, 4096)], 4096, 8192)),
    "dicom-jpeg2000": Bomb("dicom", lambda: _dicom(JPEG2000Lossless, [_jpeg2000(5792, True)], 5792, 5792, colour=True)),
    "dicom-rle": Bomb("dicom", lambda: _dicom(RLELossless, [_rle(5792)], 5792, 5792)),
    "dicom-fragments": Bomb("dicom", _many_fragments),
    "dicom-video": Bomb("dicom", _video_in_dicom, "pixels allowed", slow=True),
    "video-16k": Bomb("video", lambda: _video("mp4", "libx264", (16_000, 16_000), 2), "claims 16000×16000", slow=True),
    "video-16k-ts": Bomb(
        "video", lambda: _video("mpegts", "libx264", (16_000, 16_000), 2), "claims 16000×16000", slow=True
    ),
    "video-kept-frames": Bomb("video", lambda: _video("mp4", "libx264", (5632, 3840), 24, refs="16", bf="0")),
    "video-mjpeg": Bomb("video", _mjpeg_in_avi, "no frame of it can be decoded"),
    "video-mjpeg-scans": Bomb("video", _mjpeg_scans),
    "video-gif": Bomb("video", lambda: _gif(SIDE), "no frame of it can be decoded"),
    "video-gif-32-megapixels": Bomb("video", lambda: _gif(5_700), "claims 5700×5700"),
    "nifti-pixels": Bomb("nifti-gz", lambda: _nifti(32_767, 32_767, 1, np.uint8, 1_000_000), "claims 32767×32767"),
    "nifti-gzip": Bomb("nifti-gz", lambda: _nifti(1000, 1000, 30_000, np.uint8, 1_000_000), "bytes of pixels"),
    "nifti-expanded": Bomb("nifti-gz", lambda: _nifti(2500, 2500, 80, np.uint8, 500_000_000)),
    "nifti-fractions": Bomb("nifti-gz", lambda: _nifti(2800, 2800, 4, np.float64, 252_000_000)),
    "mask-table-wide": Bomb("mask-table", lambda: _wide_table("subject,img,pixels"), "columns"),
    "dataset-json-deep": Bomb("dataset-json", lambda: b"[" * BYTES, "too deep"),
    "study-yaml-laughs": Bomb("study-yaml", lambda: _laughs("labels"), "YAML"),
    "study-yaml-deep": Bomb("study-yaml", lambda: b"[" * 20_000, "nest"),
    "study-yaml-long": Bomb("study-yaml", lambda: b"name: a\nlabels: [" + b"a, " * (BYTES // 2) + b"]\n", "bytes"),
    "study-yaml-base-60": Bomb("study-yaml", lambda: b"labels: []\nname: 1" + b":1" * 120_000 + b"\n", "study.yaml"),
    "frames-csv-wide": Bomb("frames-csv", lambda: _wide_table(STUDY), "columns"),
    "record-wide": Bomb("record", lambda: _wide_table(RECORD), "columns"),
    "splits-folds": Bomb("splits", _folds, "more than 1000 splits"),
    "splits-deep": Bomb("splits", lambda: b'{"splits": ' + b"[" * BYTES, "too deep"),
    "splits-digits": Bomb("splits", lambda: b'{"splits": ' + b"9" * BYTES + b"}", "digits"),
}
"""All of them, by a name."""


def main() -> None:
    """Feed each to its reader in a process of its own, and print what it took."""
    from readers import READERS

    by_name = {reader.name: reader for reader in READERS}
    print("| bomb | bytes | seconds | MB | answer |\n|---|---:|---:|---:|---|")
    for name, bomb in BOMBS.items():
        content = bomb.make()
        sys.stdout.flush()
        if not os.fork():
            with tempfile.TemporaryDirectory() as folder:
                reader = by_name[bomb.reader]
                reader.prepare(Path(folder))
                before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
                answer = reader.feed(Path(folder), content).replace(folder + "/", "") or "read"
                seconds = time.process_time() - started
                grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
                print(f"| {name} | {len(content)} | {seconds:.1f} | {grown} | {answer[:150]} |", flush=True)
            os._exit(0)
        os.wait()


if __name__ == "__main__":
    main()
