"""Small files that ask for much: what a limit must meet before anything is decoded."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable

import av
import numpy as np
import seeds
from PIL import Image
from pydicom.encaps import generate_frames
from pydicom.uid import MPEG4HP41, DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

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
    raw = min(width * height * samples * bits // 8, 900_000_000)
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
    """As many pages of one pixel as 1 MB holds."""
    entries = [(256, 4, 1, 1), (257, 4, 1, 1), (262, 3, 1, 1), (273, 4, 1, 4), (279, 4, 1, 1)]
    entries.insert(2, (258, 3, 1, 8))
    size = 2 + 12 * len(entries) + 4
    count = BYTES // size
    page = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    following = [8 + size * (number + 1) for number in range(count - 1)]
    return b"II*\0" + struct.pack("<I", 8) + b"".join(page + struct.pack("<I", at) for at in [*following, 0])


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
    image = np.zeros((32, 32, 3) if colour else (32, 32), np.uint8)
    dataset = seeds.ultrasound(image[None])
    dataset.compress(JPEG2000Lossless)
    content = bytearray(next(generate_frames(dataset.PixelData, number_of_frames=1)))
    at = content.index(b"\xff\x4f\xff\x51")
    content[at + 8 : at + 16] = struct.pack(">II", side, side)
    content[at + 24 : at + 32] = struct.pack(">II", side, side)
    return bytes(content)


def _deflated(elements: int) -> bytes:
    """A deflated file that unpacks to very many elements."""
    content = seeds.saved(seeds.ultrasound(np.zeros((1, 2, 2), np.uint8)), DeflatedExplicitVRLittleEndian)
    start = 132 + 12 + int.from_bytes(content[140:144], "little")
    packer = zlib.compressobj(9, wbits=-15)
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


def _video(
    container: str, codec: str, side: tuple[int, int], frames: int, pix_fmt: str = "yuv420p", **options: str
) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = *side, pix_fmt
        picture = av.VideoFrame(*side, pix_fmt)
        for plane in picture.planes:
            plane.update(bytes(plane.buffer_size))
        for number in range(frames):
            picture.pts = number
            file.mux(stream.encode(picture))
        file.mux(stream.encode())
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
    return json.dumps({"splits": [{"name": str(n), **fold} for n in range(1_000_000)]}).encode()


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "png-gigapixels": ("png", lambda: _png(SIDE, SIDE, 0, 8, lines=2)),
    "png-colour": ("png", lambda: _png(8192, 8192, 2, 8)),
    "png-alpha": ("png", lambda: _png(8192, 8192, 6, 8)),
    "png-deep": ("png", lambda: _png(8192, 8192, 6, 16)),
    "png-deep-32": ("png", lambda: _png(8192, 4096, 6, 16)),
    "png-colour-32": ("png", lambda: _png(8192, 4096, 2, 8)),
    "tiff-gigapixels": ("tiff", lambda: _tiff(SIDE, SIDE)),
    "tiff-colour": ("tiff", lambda: _tiff(8192, 8192)),
    "tiff-deep": ("tiff", lambda: _tiff(8192, 8192, bits=16, samples=3)),
    "tiff-deep-32": ("tiff", lambda: _tiff(8192, 4096, bits=16, samples=3)),
    "tiff-samples": ("tiff", lambda: _tiff(4096, 4096, samples=60)),
    "tiff-pages": ("tiff", _tiff_pages),
    "jpeg-gigapixels": ("jpeg", lambda: _jpeg(SIDE, SIDE)),
    "jpeg-large": ("jpeg", lambda: _jpeg(8192, 8192)),
    "jpeg-scans": ("jpeg", lambda: _jpeg(8192, 4096, scans=20_000)),
    "dicom-deflated-elements": ("dicom", lambda: _deflated(20_000_000)),
    "dicom-elements": ("dicom", _elements),
    "dicom-sequences": ("dicom", _sequences),
    "dicom-header-elements": ("dicom-header", _elements),
    "dicom-header-sequences": ("dicom-header", _sequences),
    "dicom-header-names": ("dicom-header", _names),
    "dicom-frames": ("dicom", lambda: _dicom(RLELossless, [_rle(64)], 64, 64, 2**31 - 1)),
    "dicom-jpeg-scans": ("dicom", lambda: _dicom(JPEGBaseline8Bit, [_jpeg(8192, 4096, 20_000)], 4096, 8192)),
    "dicom-jpeg-large": ("dicom", lambda: _dicom(JPEGBaseline8Bit, [_jpeg(8192, 4096)], 4096, 8192)),
    "dicom-jpeg2000": ("dicom", lambda: _dicom(JPEG2000Lossless, [_jpeg2000(5792, True)], 5792, 5792, colour=True)),
    "dicom-jpeg2000-64": ("dicom", lambda: _dicom(JPEG2000Lossless, [_jpeg2000(8192, True)], 8192, 8192, colour=True)),
    "dicom-fragments": ("dicom", _many_fragments),
    "dicom-rle": ("dicom", lambda: _dicom(RLELossless, [_rle(5792)], 5792, 5792)),
    "video-h264-16k": ("video", lambda: _video("mp4", "libx264", (16_000, 16_000), 2, preset="ultrafast")),
    "video-h264-16k-ts": ("video", lambda: _video("mpegts", "libx264", (16_000, 16_000), 2, preset="ultrafast")),
    "video-h264-refs": (
        "video", lambda: _video("mp4", "libx264", (7680, 4320), 24, preset="ultrafast", refs="16", bf="0"),
    ),
    "video-h264-444": (
        "video", lambda: _video("mp4", "libx264", (7680, 4320), 20, "yuv444p10le", preset="ultrafast", refs="16"),
    ),
    "video-mjpeg": ("video", _mjpeg_in_avi),
    "video-gif": ("video", lambda: _gif(SIDE)),
    "video-gif-16k": ("video", lambda: _gif(16_000)),
    "video-gif-5k": ("video", lambda: _gif(5_700)),
    "mask-table-wide": ("mask-table", lambda: _wide_table("subject,img,pixels")),
    "dataset-json-deep": ("dataset-json", lambda: b"[" * BYTES),
    "study-yaml-laughs": ("study-yaml", lambda: _laughs("labels")),
    "study-yaml-deep": ("study-yaml", lambda: b"[" * BYTES),
    "study-yaml-long": ("study-yaml", lambda: b"name: a\nlabels: [" + b"a, " * (BYTES // 3) + b"]\n"),
    "frames-csv-wide": ("frames-csv", lambda: _wide_table(STUDY)),
    "record-wide": ("record", lambda: _wide_table(RECORD)),
    "splits-folds": ("splits", _folds),
    "splits-deep": ("splits", lambda: b'{"splits": ' + b"[" * BYTES),
    "splits-digits": ("splits", lambda: b'{"splits": ' + b"9" * BYTES + b"}"),
}  # fmt: skip
"""Reader and content of every bomb, by a name."""
