"""Every reader of EdgeFusion as a function of a file's bytes: a table for the fuzzer and for the tests.

A reader answers any content either with what it read or with an ``EdgeFusionError``; everything else is a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import seeds

from edgefusion.bundle import Bundle
from edgefusion.data.dicom import open_dicom
from edgefusion.data.dicom.cleaning import clean_attributes
from edgefusion.data.dicom.file import read_header, sound_header
from edgefusion.data.dicom.folder import dicom_files
from edgefusion.data.dicom.pseudonyms import Pseudonyms
from edgefusion.data.kaggle import FRAME_SHAPE, decode_rle, read_mask_table
from edgefusion.data.layouts import recognise
from edgefusion.data.nifti import open_nifti, open_nifti_mask
from edgefusion.data.readers import count_pages, read_frame, read_labels, read_mask, read_pages
from edgefusion.data.splits import read_splits
from edgefusion.data.study import Study
from edgefusion.data.video import open_video
from edgefusion.errors import EdgeFusionError
from edgefusion.inference.record import Record

FRAMES = 64
"""Readers of many frames are lazy: so many are asked for."""


@dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
        name: Of the reader.
        file: What the content is called on disk.
        read: Reads the file at a path in a folder that ``prepare`` has filled.
        seeds: Makes valid contents.
        words: What the fuzzer puts in, besides what it finds out itself.
        prepare: Puts the other files of the folder in place, once.
    """

    name: str
    file: str
    read: Callable[[Path], object]
    seeds: Callable[[], list[bytes]]
    words: tuple[bytes, ...] = ()
    prepare: Callable[[Path], None] = lambda folder: None

    def feed(self, folder: Path, content: bytes) -> str:
        """Read a content; returns the message of the ``EdgeFusionError`` that it was answered with, or nothing.

        Args:
            folder: One that ``prepare`` has filled.
            content: Of the file.
        """
        path = folder / self.file
        path.write_bytes(content)
        try:
            self.read(path)
        except EdgeFusionError as error:
            return str(error)
        return ""


def _each(*steps: Callable[[Path], object]) -> Callable[[Path], None]:
    """All steps, also after one that refused; what the last refusal said is said."""

    def read(path: Path) -> None:
        # Its words alone: an error that is kept keeps all frames of the stack, with the pictures in them.
        refusal = ""
        for step in steps:
            try:
                step(path)
            except EdgeFusionError as error:
                refusal = str(error)
        if refusal:
            raise EdgeFusionError(refusal)

    return read


def _drain(frames: Iterator[object]) -> None:
    for _ in islice(frames, FRAMES):
        pass


_picture = _each(read_frame, read_mask, read_labels)


def _dicom(path: Path) -> None:
    _drain(open_dicom(path).read())


def _cleaned(path: Path) -> None:
    header = read_header(path)
    with sound_header(path):
        clean_attributes(header, "patient", Pseudonyms(b"0" * 32))


def _video(path: Path) -> None:
    _drain(open_video(path).read())


def _nifti(path: Path) -> None:
    _each(lambda path: _drain(open_nifti(path).read()), lambda path: _drain(open_nifti_mask(path).read()))(path)


def _run_lengths(path: Path) -> None:
    decode_rle(path.read_bytes().decode("utf-8", "replace"), FRAME_SHAPE)


def _mask_table(path: Path) -> None:
    for text in read_mask_table(path).values():
        decode_rle(text, FRAME_SHAPE)


def _study(path: Path) -> None:
    study = Study.load(path.parent)
    study.sha256()
    for frame in islice(study.frames["frame_id"], 4):
        study.mask(frame)
        study.image(frame)


def _record(path: Path) -> None:
    record = Record(path.parent)
    record.names_for(["/a/3.png"])
    record.names_in("json", "cd" * 32)


def _weights(path: Path) -> None:
    description = path.parent / "bundle.yaml"
    description.write_text(seeds.weights_sha256(path.read_bytes(), description.read_bytes()))
    Bundle.load(path.parent)


def _nnunet(folder: Path) -> None:
    (folder / "imagesTr").mkdir()
    (folder / "imagesTr" / "a_0000.png").write_bytes(seeds.png()[0])


_TIFF_TAGS = tuple(tag.to_bytes(2, "little") for tag in (256, 257, 258, 259, 262, 273, 277, 278, 279, 322, 323, 338))
_DICOM_TAGS = tuple(
    group.to_bytes(2, "little") + element.to_bytes(2, "little")
    for group, element in (
        (0x28, 2), (0x28, 4), (0x28, 6), (0x28, 8), (0x28, 0x10), (0x28, 0x11), (0x28, 0x100), (0x28, 0x101),
        (0x28, 0x102), (0x28, 0x103), (0x28, 0x1050), (0x28, 0x1051), (0x28, 0x1052), (0x28, 0x1053), (0x28, 0x3000),
        (0x28, 0x3010), (0x28, 0x3002), (0x28, 0x1101), (0x28, 0x1201), (0x18, 0x6011), (0x18, 0x1063), (0x7FE0, 0x10),
        (0xFFFE, 0xE000), (0xFFFE, 0xE0DD), (2, 0x10), (8, 5), (4, 0x1220), (4, 0x1500),
    )
)  # fmt: skip
_UIDS = (b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.5", b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.4.90")
_VRS = (b"OB", b"OW", b"SQ", b"UI", b"US", b"SS", b"DS", b"IS", b"CS", b"LO", b"PN", b"UN", b"AT", b"FD", b"UL")
_YAML = (b"&a", b"*a", b"<<: ", b"!!python/object:os.system", b"!!binary", b"!!timestamp", b"!!int", b".inf", b".nan")

READERS = (
    Reader(
        "png", "a.png", _picture, seeds.png,
        (b"IHDR", b"IDAT", b"PLTE", b"tRNS", b"eXIf", b"acTL", b"fdAT", b"iCCP", b"zTXt", b"iTXt", b"IEND"),
    ),
    Reader(
        "tiff", "a.tif", _each(_picture, lambda path: _drain(read_pages(path)), count_pages), seeds.tiff,
        (b"II*\0", b"MM\0*", b"II+\0", *_TIFF_TAGS),
    ),
    Reader(
        "jpeg", "a.jpg", _picture, seeds.jpeg,
        (b"\xff\xd8", b"\xff\xc2", b"\xff\xda", b"Exif\0\0", b"MPF\0", b"JFIF"),
    ),
    Reader("dicom", "a.dcm", _dicom, seeds.dicom, (*_DICOM_TAGS, *_UIDS, *_VRS)),
    Reader("dicom-header", "a.dcm", _cleaned, seeds.dicom, (*_DICOM_TAGS, *_UIDS, *_VRS)),
    Reader("dicomdir", "DICOMDIR", dicom_files, seeds.dicomdir, (*_DICOM_TAGS, *_VRS, b"..", b"/")),
    Reader(
        "nifti", "a.nii", _nifti, seeds.nifti,
        (b"n+1\0", b"n+2\0", b"\x02\0\x08\0", b"\0\0\xc0\x7f", b"\0\0\x80\x7f"),
    ),
    Reader("nifti-gz", "a.nii.gz", _nifti, seeds.nifti_gz, (b"\x1f\x8b\x08",)),
    Reader(
        "video", "a.mp4", _video, seeds.videos,
        (b"moov", b"trak", b"stsd", b"avc1", b"mdat", b"RIFF", b"idx1", b"GIF89a", b"\x1aE\xdf\xa3", b"elst", b"uuid"),
    ),
    Reader("rle", "a.txt", _run_lengths, seeds.run_lengths, (b" ", b"243600", b"1 243600")),
    Reader("mask-table", "train_masks.csv", _mask_table, seeds.mask_table, (b"subject,img,pixels", b'"', b"\n")),
    Reader(
        "dataset-json", "dataset.json", lambda path: recognise(path.parent), seeds.dataset_json,
        (b'"labels"', b"NaN", b"1e999", b"[[", b"{}"), _nnunet,
    ),
    Reader("study-yaml", "study.yaml", _study, partial(seeds.facts_of, seeds.study, "study.yaml"), _YAML, seeds.study),
    Reader(
        "frames-csv", "frames.csv", _study, partial(seeds.facts_of, seeds.study, "frames.csv"),
        (b"..", b"/", b"nan", b"inf", b"1e400", b'"', b"99999999999999999999"), seeds.study,
    ),
    Reader("splits", "splits.json", read_splits, seeds.splits, (b'"splits"', b"NaN", b"[[", b"{}", b"null")),
    Reader("record", "predict-report.csv", _record, seeds.record, (b"inf", b"nan", b"\xc2\xb2", b'"', b"1e999")),
    Reader(
        "bundle-yaml", "bundle.yaml", lambda path: Bundle.load(path.parent),
        partial(seeds.facts_of, seeds.bundle, "bundle.yaml"), _YAML, seeds.bundle,
    ),
    Reader(
        "safetensors", "model.safetensors", _weights, partial(seeds.facts_of, seeds.bundle, "model.safetensors"),
        (b'"data_offsets"', b'"dtype"', b'"shape"', b"F64", b"BF16", b"__metadata__", np.uint64(2**40).tobytes()),
        seeds.bundle,
    ),
)  # fmt: skip
"""All of them."""
