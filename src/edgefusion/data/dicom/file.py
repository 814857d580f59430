"""Finding the header and the pixel data of a DICOM file, whatever its transfer syntax, without believing either."""

from __future__ import annotations

import logging
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import parse_basic_offsets, parse_fragments
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from edgefusion.errors import DataError

MAX_INFLATED = 512 * 1024 * 1024
"""Bytes to which a deflated file may unpack: a small file can unpack to any size."""

MAX_READS = 100_000
"""Parts of a header, of which an element has one to three: each takes time and hundreds of bytes of memory."""

COPY_AGAIN = "Copy or export it again."

_CHUNK = 1024 * 1024
_UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA = 0x7FE00010

# What pydicom warns of names the values of elements, and those name patients.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module=r"pydicom\.")


@dataclass(frozen=True)
class DicomFile:
    """A DICOM file that is open for reading its pixels.

    Attributes:
        path: The file.
        header: The elements before the pixel data.
        syntax: The transfer syntax of the pixel data.
        stream: Positioned at the first byte of the pixel data's value.
        vr: The pixel data's value representation, OB or OW.
        fragments: First byte and length of every fragment of compressed pixel data; empty for native ones.
    """

    path: Path
    header: Dataset
    syntax: UID
    stream: BinaryIO
    vr: str
    fragments: Sequence[tuple[int, int]]

    @property
    def length(self) -> int:
        """Bytes from the start of the pixel data's value to the end of the file."""
        return _size(self.stream) - self.stream.tell()


@contextmanager
def opened(path: Path) -> Iterator[DicomFile]:
    """Open a DICOM file at its pixel data.

    Raises:
        DataError: If the file cannot be read, is no DICOM file, has no pixel data, or ends too early.
    """
    with _plain(path) as stream:
        header = _read_header(path, stream)
        with sound_header(path):
            file = _at_pixels(path, header, stream)
        yield file


def read_header(path: Path) -> Dataset:
    """The elements before the pixel data, or all of them where there is none.

    Raises:
        DataError: If the file cannot be read, or is no DICOM file.
    """
    with _plain(path) as stream:
        return _read_header(path, stream)


@contextmanager
def sound_header(path: Path) -> Iterator[None]:
    """Turn what pydicom raises at unreadable values, nearly every kind of exception, into a ``DataError``."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        # A disk that is full or failing is no fault of the file's; pydicom's own complaints have no number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} is damaged: {reason}.", COPY_AGAIN) from error


def guessed_syntax(header: Dataset) -> UID:
    """The transfer syntax of a header: the one that it states, or else the one by which it could be read."""
    stated = header.file_meta.get("TransferSyntaxUID")
    if stated:
        return UID(stated)
    is_implicit, is_little_endian = header.original_encoding
    if is_implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if is_little_endian else ExplicitVRBigEndian


def sop_class(header: Dataset) -> UID:
    """What kind of object a file holds; empty if it does not say."""
    return UID(str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or ""))


@contextmanager
def _plain(path: Path) -> Iterator[BinaryIO]:
    """The file; where it is deflated, an unpacked copy of it that is gone afterwards."""
    try:
        stream = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    with stream:
        if not stream.read(1):
            raise DataError(f"{path} is empty (0 bytes).", COPY_AGAIN)
        stream.seek(0)
        with sound_header(path):
            meta = _read_meta(stream)
            deflated = meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
        if not deflated:
            stream.seek(0)
            yield stream
            return
        with tempfile.TemporaryFile() as unpacked:
            with sound_header(path):
                _inflate(path, stream, meta, unpacked)
            yield unpacked


def _read_meta(stream: BinaryIO) -> Dataset:
    read_preamble(stream, force=True)
    return _read_file_meta_info(stream)


def _inflate(path: Path, stream: BinaryIO, meta: Dataset, unpacked: BinaryIO) -> None:
    plain = FileMetaDataset()
    plain.TransferSyntaxUID = ExplicitVRLittleEndian
    plain.MediaStorageSOPClassUID = meta.get("MediaStorageSOPClassUID", "")
    unpacked.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(unpacked, plain, enforce_standard=False)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    while packed := (inflater.unconsumed_tail or stream.read(_CHUNK)):
        unpacked.write(inflater.decompress(packed, _CHUNK))
        if unpacked.tell() > MAX_INFLATED:
            what = f"{path} unpacks to more than {MAX_INFLATED} bytes."
            raise DataError(what, "Convert it to another transfer syntax.")
        if inflater.eof:
            break
    unpacked.write(inflater.flush())
    if not inflater.eof:
        raise DataError(f"{path} is damaged: its deflated data ends too early.", COPY_AGAIN)
    unpacked.seek(0)


def _read_header(path: Path, stream: BinaryIO) -> Dataset:
    with sound_header(path):
        header = dcmread(_Counted(stream), stop_before_pixels=True, force=True)
    if not (header.file_meta or "SOPClassUID" in header or "Rows" in header):
        raise DataError(f"{path} is not a DICOM file, whatever its name says.")
    return header


def _at_pixels(path: Path, header: Dataset, stream: BinaryIO) -> DicomFile:
    syntax = guessed_syntax(header)
    order: Literal["little", "big"] = "little" if syntax.is_little_endian else "big"
    head = stream.read(8)
    tag = int.from_bytes(head[:2], order) << 16 | int.from_bytes(head[2:4], order)
    if len(head) < 8 or tag != _PIXEL_DATA:
        kind = f" ({sop_class(header).name})" if sop_class(header) else ""
        raise DataError(f"{path} holds no picture{kind}.", "Give files of ultrasound images.")
    vr, length = "OW", int.from_bytes(head[4:8], order)
    # The file itself shows whether it names the type of its elements; its header may say otherwise.
    if head[4:6] in (b"OB", b"OW"):
        vr, length = head[4:6].decode(), int.from_bytes(stream.read(4), order)
    if (length == _UNDEFINED) != syntax.is_encapsulated:
        raise DataError(f"{path} says that its pixels are stored as {syntax.name}, and they are not.", COPY_AGAIN)
    start = stream.tell()
    fragments = _fragments(stream) if syntax.is_encapsulated else []
    end = fragments[-1][0] + fragments[-1][1] if fragments else start + (0 if syntax.is_encapsulated else length)
    if end > _size(stream):
        raise DataError(f"{path} ends in the middle of its pixel data.", COPY_AGAIN)
    stream.seek(start)
    return DicomFile(path, header, syntax, stream, vr, fragments)


def _fragments(stream: BinaryIO) -> list[tuple[int, int]]:
    parse_basic_offsets(stream)
    _, offsets = parse_fragments(stream)
    fragments = []
    for offset in offsets:
        stream.seek(offset + 4)
        fragments.append((offset + 8, int.from_bytes(stream.read(4), "little")))
    return fragments


class _Counted:
    """A stream from which a header is read, in parts that are counted."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._left = MAX_READS
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise ValueError("its header has too many elements")
        return self._stream.read(size)


def _size(stream: BinaryIO) -> int:
    position = stream.tell()
    size = stream.seek(0, 2)
    stream.seek(position)
    return size
