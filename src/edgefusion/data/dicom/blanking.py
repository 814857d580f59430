"""Writing a DICOM object's frames anew with everything outside the ultrasound image blanked, without further loss."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import DataElement, Dataset
from pydicom.pixels import get_encoder
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from edgefusion.data.clip import Region
from edgefusion.data.dicom.file import DicomFile
from edgefusion.data.dicom.pixels import iter_samples
from edgefusion.files import atomic_path

_LEAST_SIDE = 32
"""The encoder of JPEG 2000 takes no smaller frames."""


def write_blanked(file: DicomFile, count: int, regions: list[Region], cleaned: Dataset, path: Path) -> None:
    """Write an object of which only the pixels inside the regions are kept.

    Native pixels stay native (explicit VR, little endian); compressed ones, videos too, become JPEG 2000 lossless.
    Colours become RGB.

    Args:
        file: The source, open at its pixel data.
        count: Number of its frames.
        regions: The rectangles to keep.
        cleaned: What goes before the pixels; its image attributes are changed to fit.
        path: The new file, written atomically.

    Raises:
        DataError: At a frame that cannot be decoded.
    """
    compress = file.syntax.is_encapsulated and min(cleaned.Rows, cleaned.Columns) >= _LEAST_SIDE
    _describe(cleaned, compress)
    frames = _blanked(file, count, regions)
    with TemporaryFile() as pixels:
        for frame in frames:
            if compress:
                _write_item(pixels, _encoded(frame, cleaned), first=pixels.tell() == 0)
            else:
                pixels.write(frame.tobytes())
        if pixels.tell() % 2:
            pixels.write(b"\0")
        pixels.seek(0)
        vr = "OB" if compress or cleaned.BitsAllocated == 8 else "OW"
        cleaned["PixelData"] = DataElement("PixelData", vr, pixels)
        cleaned["PixelData"].is_undefined_length = compress
        with atomic_path(path) as temporary:
            cleaned.save_as(temporary, enforce_file_format=True)
        del cleaned["PixelData"]


def _describe(cleaned: Dataset, compress: bool) -> None:
    if cleaned.SamplesPerPixel == 3:
        cleaned.PlanarConfiguration = 0
        cleaned.PhotometricInterpretation = "YBR_RCT" if compress else "RGB"
    cleaned.file_meta.TransferSyntaxUID = JPEG2000Lossless if compress else ExplicitVRLittleEndian


def _blanked(file: DicomFile, count: int, regions: list[Region]) -> Iterator[NDArray[Any]]:
    header = file.header
    kind = f"{'i' if header.get('PixelRepresentation', 0) else 'u'}{header.BitsAllocated // 8}"
    outside = np.ones((header.Rows, header.Columns), dtype=bool)
    for region in regions:
        region.crop(outside)[...] = False
    blank = (1 << header.BitsStored) - 1 if header.PhotometricInterpretation == "MONOCHROME1" else 0
    for samples in iter_samples(file, count):
        frame = samples.astype(f"<{kind}")
        frame[outside] = blank
        yield frame


def _encoded(frame: NDArray[Any], cleaned: Dataset) -> bytes:
    encoded = get_encoder(JPEG2000Lossless).encode(
        frame,
        rows=cleaned.Rows,
        columns=cleaned.Columns,
        number_of_frames=1,
        samples_per_pixel=cleaned.SamplesPerPixel,
        bits_allocated=cleaned.BitsAllocated,
        bits_stored=cleaned.BitsStored,
        pixel_representation=cleaned.get("PixelRepresentation", 0),
        photometric_interpretation=cleaned.PhotometricInterpretation,
        **({"planar_configuration": 0} if frame.ndim == 3 else {}),
    )
    return bytes(encoded)


def _write_item(pixels: BinaryIO, content: bytes, first: bool) -> None:
    """One item a frame, after an empty table of offsets (DICOM PS3.5, A.4)."""
    if first:
        pixels.write(b"\xfe\xff\x00\xe0\0\0\0\0")
    content += b"\0" * (len(content) % 2)
    pixels.write(b"\xfe\xff\x00\xe0" + len(content).to_bytes(4, "little") + content)
