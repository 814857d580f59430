"""Small valid files of every kind that EdgeFusion reads, made on the spot: what the fuzzer starts from.

Nothing of a person: the pictures are noise.
"""

from __future__ import annotations

import gzip
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import nibabel
import numpy as np
import pandas as pd
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin
from pydicom import DataElement, Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    MPEG4HP41,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    MediaStorageDirectoryStorage,
    RLELossless,
    UltrasoundMultiFrameImageStorage,
)

from edgefusion.bundle import Bundle
from edgefusion.config import ChannelRecipe
from edgefusion.data.kaggle import encode_rle
from edgefusion.data.splits import Split, write_splits
from edgefusion.data.study import Study, frames_table, store_frame
from edgefusion.models.zoo import build_model

HEIGHT, WIDTH = 32, 48
NETWORK = {"widths": [4, 4, 4, 4], "stem_widths": [4, 4, 4], "edge_channel": 1}


def _noise(*shape: int, kind: type[np.generic] = np.uint8) -> NDArray[Any]:
    rng = np.random.default_rng(0)
    return rng.integers(0, np.iinfo(kind).max, shape, dtype=kind, endpoint=True)  # type: ignore[arg-type, type-var]


def _picture(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _images() -> list[Image.Image]:
    grey = Image.fromarray(_noise(HEIGHT, WIDTH))
    colour = Image.fromarray(_noise(HEIGHT, WIDTH, 3))
    return [grey, colour, grey.convert("1"), colour.convert("P"), colour.convert("RGBA"), grey.convert("LA")]


def _deep_colours(suffix: str) -> list[bytes]:
    """Pictures with 16-bit colours, which OpenCV reads, with and without alpha."""
    pictures = [_noise(HEIGHT, WIDTH, channels, kind=np.uint16) for channels in (3, 4)]
    return [cv2.imencode(suffix, picture)[1].tobytes() for picture in pictures]


def png() -> list[bytes]:
    """Grey, colour, black and white, palette, alpha, 16 bits."""
    deep = Image.fromarray(_noise(HEIGHT, WIDTH, kind=np.uint16))
    return [*[_picture(image, "PNG") for image in [*_images(), deep]], *_deep_colours(".png")]


def tiff() -> list[bytes]:
    """Every compression, tiles and pages."""
    grey, colour, mono = _images()[:3]
    kinds = ["raw", "tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg"]
    pages = _picture(grey, "TIFF", save_all=True, append_images=[grey, grey])
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    directory[274] = 6  # lies on its side
    return [
        *[_picture(image, "TIFF", compression=kind) for kind in kinds for image in (grey, colour)],
        *[_picture(mono, "TIFF", compression=kind) for kind in ("group3", "group4")],
        _picture(Image.fromarray(_noise(HEIGHT, WIDTH, kind=np.uint16)), "TIFF", tiffinfo=directory),
        pages,
        *_deep_colours(".tif"),
    ]


def jpeg() -> list[bytes]:
    """Grey, colour, CMYK, progressive."""
    grey, colour = _images()[:2]
    return [
        _picture(grey, "JPEG"),
        _picture(colour, "JPEG", progressive=True),
        _picture(colour.convert("CMYK"), "JPEG"),
    ]


def dicom() -> list[bytes]:
    """Every family of transfer syntaxes."""
    grey, colour = _noise(2, HEIGHT, WIDTH), _noise(2, HEIGHT, WIDTH, 3)
    native = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
    files = [saved(ultrasound(grey), syntax) for syntax in native]
    files += [saved(ultrasound(colour), syntax) for syntax in (ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless)]
    files += [saved(ultrasound(grey), syntax) for syntax in (RLELossless, JPEGLSLossless)]
    files.append(saved(ultrasound(_noise(1, HEIGHT, WIDTH, kind=np.uint16)), JPEG2000Lossless))
    files.append(encapsulated(ultrasound(grey), JPEGBaseline8Bit, [jpeg()[0]] * 2))
    files.append(encapsulated(ultrasound(colour), MPEG4HP41, [one_video("mpegts", "libx264")]))
    return files


def ultrasound(frames: NDArray[Any]) -> Dataset:
    """An ultrasound object of frames N×H×W or N×H×W×3."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = UltrasoundMultiFrameImageStorage, "2.25.1"
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = (
        dataset.SOPClassUID,
        dataset.SOPInstanceUID,
    )
    dataset.Modality, dataset.PatientName, dataset.PatientID, dataset.StudyInstanceUID = "US", "A^B", "7", "2.25.2"
    dataset.NumberOfFrames, dataset.FrameTime, dataset.FrameIncrementPointer = len(frames), 40, 0x00181063
    dataset.Rows, dataset.Columns = frames.shape[1:3]
    colour, bits = frames.ndim == 4, frames.dtype.itemsize * 8
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        dataset.PlanarConfiguration = 0
    else:
        dataset.WindowCenter, dataset.WindowWidth, dataset.RescaleSlope, dataset.RescaleIntercept = 100, 200, 1, 0
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType = 1, 1
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 2, 2
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = WIDTH - 2, HEIGHT - 2
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX = region.PhysicalDeltaY = 0.01
    dataset.SequenceOfUltrasoundRegions = [region]
    dataset["PixelData"] = DataElement("PixelData", "OB" if bits == 8 else "OW", frames.tobytes())
    return dataset


def saved(dataset: Dataset, syntax: str) -> bytes:
    """The object as a file."""
    buffer = io.BytesIO()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if UID(syntax).is_encapsulated:
        dataset.compress(syntax, encoding_plugin="pyjpegls" if syntax == JPEGLSLossless else "")
        dataset.save_as(buffer, enforce_file_format=True)
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(
            buffer,
            little_endian=syntax != ExplicitVRBigEndian,
            implicit_vr=syntax == ImplicitVRLittleEndian,
            enforce_file_format=True,
        )
    return buffer.getvalue()


def encapsulated(dataset: Dataset, syntax: str, fragments: list[bytes]) -> bytes:
    """The object as a file, with compressed pixels of which nothing is known."""
    items = [content + b"\0" * (len(content) % 2) for content in fragments]
    item = b"\xfe\xff\x00\xe0"
    value = item + bytes(4) + b"".join(item + len(content).to_bytes(4, "little") + content for content in items)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset["PixelData"] = DataElement("PixelData", "OB", value)
    dataset["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def dicomdir() -> list[bytes]:
    """A DICOMDIR of one file."""
    index, record, meta = Dataset(), Dataset(), FileMetaDataset()
    record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", ["A", "B"]
    index.FileSetID, index.DirectoryRecordSequence = "SET", [record]
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MediaStorageDirectoryStorage, "2.25.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    index.file_meta = meta
    buffer = io.BytesIO()
    index.save_as(buffer, enforce_file_format=True)
    return [buffer.getvalue()]


def nifti() -> list[bytes]:
    """Every type of samples, one frame and several, scaled and not, in both byte orders; also labels."""
    frames = _noise(2, HEIGHT, WIDTH)
    kinds = (np.uint8, np.int16, np.uint16, np.float32, np.float64)
    files = [_nifti(frames.astype(kind).T, slope) for kind in kinds for slope in (1.0, 0.5)]
    files.append(_nifti(frames[0].astype(">i2").T, 1.0))
    files.append(_nifti((frames % 2).T, 1.0))
    return [*files, nibabel.Nifti2Image(frames.T, np.eye(4)).to_bytes()]


def _nifti(frames: NDArray[Any], slope: float) -> bytes:
    image = nibabel.Nifti1Image(frames, np.eye(4), dtype=frames.dtype)
    image.header.set_xyzt_units("mm")
    image.header.set_zooms((0.1,) * frames.ndim)
    content = bytearray(image.to_bytes())
    content[112:116] = np.float32(slope).tobytes()
    return bytes(content)


def nifti_gz() -> list[bytes]:
    """The same, compressed."""
    return [gzip.compress(content, mtime=0) for content in nifti()]


def videos() -> list[bytes]:
    """The containers and codecs that scanners and cameras use."""
    kinds = [
        ("mp4", "libx264"),
        ("mpegts", "libx264"),
        ("avi", "mjpeg"),
        ("avi", "mpeg4"),
        ("matroska", "libx264"),
        ("webm", "libvpx"),
        ("mpeg", "mpeg2video"),
        ("gif", "gif"),
        ("mov", "mjpeg"),
        ("avi", "rawvideo"),
    ]
    return [one_video(*kind) for kind in kinds]


def one_video(container: str, codec: str) -> bytes:
    """Four frames."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=25)
        stream.height, stream.width = HEIGHT, WIDTH
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        for grey in _noise(4, HEIGHT, WIDTH):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="gray").reformat(format=stream.pix_fmt)))
        file.mux(stream.encode())
    return buffer.getvalue()


def run_lengths() -> list[bytes]:
    """Masks as text."""
    mask = np.zeros((420, 580), np.uint8)
    mask[100:200, 50:150] = 1
    return [b"", encode_rle(mask).encode(), b"1 243600", b"1 3 10 5", b"0 1", b"-1 +5", b"99999999999 1"]


def mask_table() -> list[bytes]:
    """Kaggle's table."""
    return [b"subject,img,pixels\n1,1,1 3 10 5\n1,2,\n", b'\xef\xbb\xbfimg,subject,pixels\n1,2,"1 3"\n']


def dataset_json() -> list[bytes]:
    """nnU-Net 2's and nnU-Net 1's."""
    second = {"labels": {"background": 0, "nerve": 1}, "channel_names": {"0": "US"}, "file_ending": ".png"}
    return [json.dumps(value).encode() for value in (second, {"labels": {"0": "background", "1": "nerve"}})]


def study(folder: Path) -> None:
    """A study of two frames, one labelled."""
    pixels, mask = _noise(HEIGHT, WIDTH), np.ones((HEIGHT, WIDTH), np.uint8)
    rows = [
        store_frame(folder, "1_1", "1", pixels, mask, spacing=(0.1, 0.1)),
        store_frame(folder, "2_1", "2", pixels, None),
    ]
    Study(folder, "seed", ["nerve"], "made", "none", frames_table(rows)).save()


def splits() -> list[bytes]:
    """Two folds."""
    folds = [Split("fold_0", ("1",), ("2",), ("1_1",)), Split("fold_1", ("2",), ("1",))]
    return [_written("splits.json", lambda path: write_splits(path, folds))]


def record() -> list[bytes]:
    """What predict remembers."""
    row = {
        "input": "/a/1.png", "name": "1", "status": "done", "reason": "", "formats": "json png",
        "spacing_mm": "0.1x0.1", "input_sha256": "ab" * 32, "made_by": "cd" * 32,
        "nerve_area_px": 7, "nerve_presence": 0.5,
    }  # fmt: skip
    return [pd.DataFrame([row, {**row, "input": "/a/2.png"}]).to_csv(index=False).encode()]


def bundle(folder: Path) -> None:
    """A bundle with a tiny network."""
    torch.manual_seed(0)
    network = build_model("edgefusion-unet", 2, 1, **NETWORK)
    recipe = ChannelRecipe(channels=("raw", "edges"), height=32, width=32, resolution="network")
    Bundle(network, "edgefusion-unet", recipe, ["nerve"], dict(NETWORK), trained_on=["1"]).save(folder)


def facts_of(make: Callable[[Path], None], file: str) -> list[bytes]:
    """The content of one file of a folder that is made."""
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        return [(Path(folder) / file).read_bytes()]


def weights_sha256(content: bytes, description: bytes) -> str:
    """A bundle.yaml that vouches for other weights, so that these are read at all."""
    import hashlib

    return yaml.safe_dump({**yaml.safe_load(description), "weights_sha256": hashlib.sha256(content).hexdigest()})


def _written(name: str, write: Callable[[Path], None]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()
