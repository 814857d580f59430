"""Decoding the pixels of a DICOM file frame by frame, with memory for one frame."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import JPEG2000TransferSyntaxes, MPEGTransferSyntaxes, RLELossless

from edgefusion.data import readers
from edgefusion.data.dicom.file import COPY_AGAIN, DicomFile
from edgefusion.data.dicom.video import iter_video
from edgefusion.errors import DataError

PALETTE = "PALETTE COLOR"
"""Photometric interpretation of pixels that are places in a table of colours."""

_ONE_SAMPLE = ("MONOCHROME1", "MONOCHROME2", PALETTE)
_THREE_SAMPLES = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_PARTIAL_422", "YBR_RCT", "YBR_ICT")
_CONVERT = "Convert it with dcmdjpeg or gdcmconv --raw."


def check_image(file: DicomFile) -> int:
    """Check what the header claims of the pixels before anything is decoded.

    Returns:
        The number of frames.

    Raises:
        DataError: If the frames are too large, of a kind that is not read, or the file is too short for them.
    """
    header, path = file.header, file.path
    rows, columns = _integer(file, "Rows"), _integer(file, "Columns")
    if rows < 1 or columns < 1:
        raise DataError(f"{path} claims frames of {columns}×{rows} pixels.", COPY_AGAIN)
    if rows * columns > readers.MAX_PIXELS:
        what = f"{path} claims {columns}×{rows} pixels, more than the {readers.MAX_PIXELS} allowed."
        raise DataError(what, "Crop it or scale it down.")
    samples, interpretation = _integer(file, "SamplesPerPixel"), str(header.get("PhotometricInterpretation"))
    if interpretation not in {1: _ONE_SAMPLE, 3: _THREE_SAMPLES}.get(samples, ()):
        raise DataError(f"{path} has {samples} samples a pixel and colours of kind {interpretation}.", _CONVERT)
    allocated, stored = _integer(file, "BitsAllocated"), _integer(file, "BitsStored")
    if allocated not in (8, 16) or not 1 <= stored <= allocated:
        raise DataError(f"{path} has {stored} bits a sample in {allocated}.", "Save it with 8 or 16 bits a sample.")
    if header.get("HighBit", stored - 1) != stored - 1:
        raise DataError(f"{path} keeps its {stored} bits below bit {header.HighBit}, as is no longer done.", _CONVERT)
    if header.get("PixelRepresentation", 0) not in (0, 1):
        raise DataError(f"{path} has samples of an unknown kind.", _CONVERT)
    count = _integer(file, "NumberOfFrames", 1)
    if count < 1:
        raise DataError(f"{path} claims {count} frames.", COPY_AGAIN)
    halves = 1 if interpretation != "YBR_FULL_422" else 2 / 3
    if not file.fragments and rows * columns * samples * (allocated // 8) * count * halves > file.length:
        raise DataError(f"{path} ends before the last of its {count} frames.", COPY_AGAIN)
    if file.syntax.is_encapsulated and not file.fragments:
        raise DataError(f"{path} has no pixel data.", COPY_AGAIN)
    return count


def iter_samples(file: DicomFile, count: int) -> Iterator[NDArray[Any]]:
    """Yield every frame's stored values, H×W of one sample, or H×W×3 RGB whatever the colours are stored as.

    Args:
        file: The file, checked by ``check_image``.
        count: Number of frames.

    Raises:
        DataError: At a frame that cannot be decoded or is missing.
    """
    shape = (file.header.Rows, file.header.Columns)
    done = 0
    try:
        for samples in islice(_decoded(file, count), count):
            if samples.shape[:2] != shape:
                raise ValueError(f"it has {samples.shape[1]}×{samples.shape[0]} pixels, its header says otherwise")
            done += 1
            yield samples
    # Decoders answer damaged files with nearly every kind of exception.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{file.path}: frame {done + 1} cannot be decoded: {reason}.", COPY_AGAIN) from error
    if done < count:
        raise DataError(f"{file.path} ends after {done} of its {count} frames.", COPY_AGAIN)


def _decoded(file: DicomFile, count: int) -> Iterator[NDArray[Any]]:
    header = file.header
    if file.syntax in MPEGTransferSyntaxes:
        yield from iter_video(file.stream, file.fragments, header.Rows, header.Columns)
        return
    try:
        decoder = get_decoder(file.syntax)
    except NotImplementedError:
        raise ValueError(f"its transfer syntax {file.syntax} ({file.syntax.name}) is not known") from None
    options = as_pixel_options(header, pixel_keyword="PixelData", pixel_vr=file.vr)
    options["transfer_syntax_uid"] = file.syntax
    options["number_of_frames"] = count
    if not file.fragments:
        # One call a frame: pydicom's iterator forgets after the first one that colours may be stored halved.
        for index in range(count):
            yield decoder.as_array(file.stream, index=index, **options)[0]
        return
    frames = decoder.iter_array(file.stream, **options)
    # Decoders make room for what a frame itself claims, so each is looked at before it is decoded.
    with file.path.open("rb") as other:
        other.seek(file.stream.tell())
        encoded_frames = generate_frames(
            other, number_of_frames=count, extended_offsets=options.get("extended_offsets")
        )
        for encoded in encoded_frames:
            _check_frame(encoded, header, file.syntax)
            yield next(frames)[0]


def _check_frame(encoded: bytes, header: Dataset, syntax: str) -> None:
    expected = (header.Rows, header.Columns)
    if syntax == RLELossless:
        # Runs make nothing longer than by a 128th, and a run of 2 bytes unpacks to 128.
        plain = header.Rows * header.Columns * header.SamplesPerPixel * (header.BitsAllocated // 8)
        if len(encoded) > 2 * plain + 1024:
            raise ValueError(f"it has {len(encoded)} bytes, too many for its size")
        return
    if syntax not in JPEG2000TransferSyntaxes and encoded.count(readers.START_OF_SCAN) > readers.MAX_SCANS:
        raise ValueError(f"it has more than {readers.MAX_SCANS} scans")
    size = _size_in_jpeg2000(encoded) if syntax in JPEG2000TransferSyntaxes else _size_in_jpeg(encoded)
    if size is not None and size != expected:
        raise ValueError(f"it has {size[1]}×{size[0]} pixels, the header says {expected[1]}×{expected[0]}")


def _size_in_jpeg2000(encoded: bytes) -> tuple[int, int] | None:
    """Rows and columns that a JPEG 2000 codestream claims (ISO/IEC 15444-1, A.5.1)."""
    start = encoded.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(encoded) < start + 24:
        return None
    width, height, left, top = (int.from_bytes(encoded[start + at : start + at + 4], "big") for at in (8, 12, 16, 20))
    return height - top, width - left


def _size_in_jpeg(encoded: bytes) -> tuple[int, int] | None:
    """Rows and columns that a JPEG or JPEG-LS codestream claims (ISO/IEC 10918-1, B.2.2)."""
    at = 2
    while at + 9 <= len(encoded):
        if encoded[at] != 0xFF:
            return None
        marker = encoded[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return int.from_bytes(encoded[at + 5 : at + 7], "big"), int.from_bytes(encoded[at + 7 : at + 9], "big")
        else:
            at += 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")
    return None


def _integer(file: DicomFile, keyword: str, default: int | None = None) -> int:
    value = file.header.get(keyword, default)
    try:
        return default if value is None and default is not None else int(value)
    except (TypeError, ValueError):
        raise DataError(f"{file.path} does not say its {keyword}.", COPY_AGAIN) from None
