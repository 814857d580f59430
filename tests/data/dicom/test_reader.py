"""Every transfer syntax, colour and depth gives the grey levels that were put in, and every damage gives words."""

from __future__ import annotations

import io
import shutil
import subprocess
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    MPEG2MPML,
    MPEG4HP41,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from edgefusion.data import readers
from edgefusion.data.dicom import file as dicom_file
from edgefusion.data.dicom import open_dicom
from edgefusion.data.dicom.video import Fragments
from edgefusion.data.sources import open_clip
from edgefusion.errors import DataError

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
LOSSLESS = (*NATIVE, RLELossless, JPEGLSLossless, JPEG2000Lossless)
Write = Callable[..., Path]


def speckle(shape: tuple[int, ...], dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def decoded(path: Path) -> np.ndarray:
    return np.stack(list(open_dicom(path).read()))


@pytest.mark.parametrize("syntax", LOSSLESS)
class TestLosslessSyntaxes:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    @pytest.mark.parametrize("count", [1, 3])
    def test_grey_is_kept(self, tmp_path: Path, write_ultrasound: Write, syntax: str, dtype: type, count: int) -> None:
        frames = speckle((count, 33, 37), dtype)
        clip = open_clip(write_ultrasound(tmp_path / "x", frames, syntax))
        read = list(clip.read())
        assert clip.count == count
        assert read[0].dtype == dtype
        np.testing.assert_array_equal(read, frames)
        np.testing.assert_array_equal(list(clip.read()), frames)

    def test_colour_that_is_grey_is_kept(self, tmp_path: Path, write_ultrasound: Write, syntax: str) -> None:
        frames = speckle((2, 33, 38))
        path = write_ultrasound(tmp_path / "x.dcm", np.stack([frames] * 3, axis=-1), syntax)
        np.testing.assert_array_equal(decoded(path), frames)

    def test_colour_becomes_luma(self, tmp_path: Path, write_ultrasound: Write, syntax: str) -> None:
        frames = speckle((1, 34, 36, 3))
        luma = frames[0] @ np.array([0.299, 0.587, 0.114])
        np.testing.assert_allclose(decoded(write_ultrasound(tmp_path / "x.dcm", frames, syntax))[0], luma, atol=0.51)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    syntax=st.sampled_from(LOSSLESS),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)),
    bits=st.integers(1, 16),
    inverted=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_depth_fills_the_scale(
    tmp_path: Path,
    write_ultrasound: Write,
    syntax: str,
    shape: tuple[int, int, int],
    bits: int,
    inverted: bool,
    seed: int,
) -> None:
    # The encoders take no smaller frames, and that of JPEG-LS no single bit.
    least = 31 if syntax in (JPEG2000Lossless, JPEGLSLossless) else 0
    bits = max(bits, 2 if syntax == JPEGLSLossless else 1)
    shape = (shape[0], shape[1] + least, shape[2] + least)
    kind = np.uint8 if bits <= 8 else np.uint16
    stored = np.random.default_rng(seed).integers(0, 1 << bits, shape).astype(kind)
    interpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    path = tmp_path / "x.dcm"
    write_ultrasound(path, stored, syntax, BitsStored=bits, HighBit=bits - 1, PhotometricInterpretation=interpretation)
    share = stored / ((1 << bits) - 1)
    expected = np.rint((1 - share if inverted else share) * np.iinfo(kind).max)
    np.testing.assert_array_equal(decoded(path), expected)


class TestGreyScale:
    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLSLossless, RLELossless])
    def test_signed_values_start_at_black(self, tmp_path: Path, write_ultrasound: Write, syntax: str) -> None:
        stored = np.tile(np.array([-2048, 0, 2047, -1], np.int16), (1, 16, 4))
        path = tmp_path / "x.dcm"
        write_ultrasound(path, stored, syntax, BitsStored=12, HighBit=11, PixelRepresentation=1)
        np.testing.assert_array_equal(decoded(path)[0, 0, :4], np.rint(np.array([0, 2048, 4095, 2047]) / 4095 * 65535))

    def test_planes_apart(self, tmp_path: Path, write_ultrasound: Write) -> None:
        frames = speckle((2, 8, 10, 3))
        apart = np.ascontiguousarray(np.moveaxis(frames, 3, 1)).tobytes()
        path = write_ultrasound(tmp_path / "x.dcm", frames, PlanarConfiguration=1, PixelData=apart)
        luma = frames @ np.array([0.299, 0.587, 0.114])
        np.testing.assert_allclose(decoded(path), luma, atol=0.51)

    def test_ybr_gives_its_luma(self, tmp_path: Path, write_ultrasound: Write) -> None:
        luma = speckle((2, 8, 10))
        frames = np.stack([luma, np.full_like(luma, 128), np.full_like(luma, 128)], axis=-1)
        path = write_ultrasound(tmp_path / "x.dcm", frames, PhotometricInterpretation="YBR_FULL")
        np.testing.assert_array_equal(decoded(path), luma)

    def test_ybr_with_halved_colours(self, tmp_path: Path, write_ultrasound: Write) -> None:
        luma = speckle((2, 8, 10))
        packed = np.full((2, 8, 5, 4), 128, np.uint8)
        packed[..., 0], packed[..., 1] = luma[:, :, ::2], luma[:, :, 1::2]
        attributes = {"PhotometricInterpretation": "YBR_FULL_422", "PixelData": packed.tobytes()}
        path = write_ultrasound(tmp_path / "x.dcm", np.zeros((2, 8, 10, 3), np.uint8), **attributes)
        np.testing.assert_array_equal(decoded(path), luma)

    @pytest.mark.parametrize("depth", [8, 16])
    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
    def test_a_palette_is_looked_up(self, tmp_path: Path, write_ultrasound: Write, depth: int, syntax: str) -> None:
        stored = speckle((1, 9, 11))
        levels = np.arange(255, -1, -1).astype(np.uint8)
        table = levels if depth == 8 else levels.astype(np.uint16) * 257
        attributes = {"PhotometricInterpretation": "PALETTE COLOR"}
        for colour in ("Red", "Green", "Blue"):
            attributes[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, depth]
            attributes[f"{colour}PaletteColorLookupTableData"] = table.tobytes()
        np.testing.assert_array_equal(
            decoded(write_ultrasound(tmp_path / "x.dcm", stored, syntax, **attributes)), 255 - stored
        )

    def test_a_window_cuts_the_scale(self, tmp_path: Path, write_ultrasound: Write) -> None:
        stored = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
        whole = write_ultrasound(tmp_path / "whole.dcm", stored, WindowCenter=128, WindowWidth=256)
        np.testing.assert_array_equal(decoded(whole), stored)
        part = decoded(write_ultrasound(tmp_path / "part.dcm", stored, WindowCenter=[100.5, 7], WindowWidth=[101, 3]))
        flat = part.ravel()
        assert (flat[:51] == 0).all()
        assert (flat[150:] == 255).all()
        assert (np.diff(flat[50:151].astype(int)) > 0).all()

    def test_a_window_counts_in_rescaled_values(self, tmp_path: Path, write_ultrasound: Write) -> None:
        stored = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
        attributes = {"RescaleSlope": 2, "RescaleIntercept": -100, "WindowCenter": 156, "WindowWidth": 512}
        attributes["VOILUTFunction"] = "LINEAR_EXACT"
        read = decoded(write_ultrasound(tmp_path / "x.dcm", stored, **attributes)).ravel()
        np.testing.assert_array_equal(read, np.rint((np.arange(256) * 2 + 0) / 512 * 255))

    def test_a_falling_rescale_alone_inverts(self, tmp_path: Path, write_ultrasound: Write) -> None:
        stored = speckle((1, 9, 9))
        path = write_ultrasound(tmp_path / "x.dcm", stored, RescaleSlope=-1, RescaleIntercept=255)
        np.testing.assert_array_equal(decoded(path), 255 - stored)


class TestLossyAndForeign:
    def test_jpeg_baseline_within_its_losses(self, tmp_path: Path, write_ultrasound: Write) -> None:
        ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (2, 48, 1))
        colour = np.stack([ramp] * 3, axis=-1)
        path = tmp_path / "x.dcm"
        write_ultrasound(path, colour)
        encapsulated(path, [jpeg(frame) for frame in colour], JPEGBaseline8Bit, "YBR_FULL_422")
        assert np.abs(decoded(path).astype(int) - ramp).max() <= 4

    @pytest.mark.parametrize("option", ["+e1", "+el", "+eb"])
    def test_codestreams_of_dcmtk(self, tmp_path: Path, write_ultrasound: Write, option: str) -> None:
        if shutil.which("dcmcjpeg") is None:
            pytest.skip("dcmcjpeg (Debian: dcmtk) is not installed")
        ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (3, 48, 1))
        plain = write_ultrasound(tmp_path / "plain.dcm", ramp)
        subprocess.run(["dcmcjpeg", option, plain, tmp_path / "x.dcm"], check=True, capture_output=True)
        assert dcmread(tmp_path / "x.dcm").file_meta.TransferSyntaxUID != ExplicitVRLittleEndian
        assert np.abs(decoded(tmp_path / "x.dcm").astype(int) - ramp).max() <= (4 if option == "+eb" else 0)

    @pytest.mark.parametrize(
        ("codec", "container", "syntax"),
        [
            ("libx264", "mp4", MPEG4HP41),
            ("libx264", "mpegts", MPEG4HP41),
            ("libx264", "h264", MPEG4HP41),
            ("mpeg2video", "mpegts", MPEG2MPML),
            ("mpeg2video", "mpeg2video", MPEG2MPML),
        ],
    )
    def test_video(
        self,
        tmp_path: Path,
        write_ultrasound: Write,
        encode_video: Callable[..., bytes],
        codec: str,
        container: str,
        syntax: str,
    ) -> None:
        steps = np.arange(20, 220, 20)
        frames = np.stack([np.full((64, 96, 3), step, np.uint8) for step in steps])
        path = write_ultrasound(tmp_path / "x.dcm", frames)
        content = encode_video(frames, codec, container)
        third = len(content) // 3
        encapsulated(path, [content[:third] + content[third:]], syntax, "YBR_PARTIAL_420", fragments=3)
        clip = open_dicom(path)
        read = np.stack(list(clip.read()))
        assert read.shape == (10, 64, 96)
        assert clip.rate == pytest.approx(25)
        np.testing.assert_allclose(read.mean(axis=(1, 2)), steps, atol=3)

    def test_a_video_of_another_size_is_refused(
        self, tmp_path: Path, write_ultrasound: Write, encode_video: Callable[..., bytes]
    ) -> None:
        frames = np.zeros((3, 64, 96, 3), np.uint8)
        path = write_ultrasound(tmp_path / "x.dcm", frames)
        encapsulated(path, [encode_video(frames[:, :32], "libx264", "mp4")], MPEG4HP41, "YBR_PARTIAL_420")
        with pytest.raises(DataError, match=r"x\.dcm: frame 1 .* video has 96×32 pixels, its header says 96×64"):
            list(open_dicom(path).read())

    def test_without_preamble(self, tmp_path: Path, write_ultrasound: Write) -> None:
        frames = speckle((2, 9, 12))
        for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian):
            bare = dcmread(write_ultrasound(tmp_path / "whole", frames, syntax))
            del bare.file_meta
            bare.preamble = None
            implicit, little = bare.original_encoding
            bare.save_as(tmp_path / "bare", implicit_vr=implicit, little_endian=little)
            assert (tmp_path / "bare").read_bytes()[128:132] != b"DICM"
            np.testing.assert_array_equal(list(open_clip(tmp_path / "bare").read()), frames)


@pytest.mark.parametrize(
    ("name", "shape", "rate"),
    [
        ("examples_rgb_color.dcm", (1, 240, 320), None),
        ("examples_palette.dcm", (1, 350, 800), None),
        ("examples_jpeg2k.dcm", (1, 480, 640), None),
        ("examples_ybr_color.dcm", (30, 240, 320), 30.0),
        ("ExplVR_BigEnd.dcm", (1, 60, 80), None),
    ],
)
def test_ultrasound_of_pydicom(name: str, shape: tuple[int, ...], rate: float | None) -> None:
    path = get_testdata_file(name, download=False)
    assert path is not None
    clip = open_clip(path)
    frames = np.stack(list(clip.read()))
    assert frames.shape == shape
    assert frames.dtype == np.uint8
    assert frames.std() > 10
    assert clip.count == shape[0]
    assert clip.rate == (None if rate is None else pytest.approx(rate, rel=1e-3))
    # Where these files state regions, the frames were scaled down or cut afterwards.
    assert (clip.region, clip.spacing) == (None, None)


@pytest.mark.parametrize(
    "name",
    [
        "color-pl.dcm",
        "color-px.dcm",
        "color3d_jpeg_baseline.dcm",
        "gdcm-US-ALOKA-16.dcm",
        "gdcm-US-ALOKA-16_big.dcm",
        "US1_J2KI.dcm",
        "US1_J2KR.dcm",
        "US1_UNCI.dcm",
        "US1_UNCR.dcm",
    ],
)
def test_ultrasound_that_pydicom_downloads(name: str) -> None:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"{name} would have to be downloaded")
    clip = open_clip(path)
    header = dcmread(path, stop_before_pixels=True)
    frames = list(clip.read())
    assert len(frames) == clip.count == header.get("NumberOfFrames", 1)
    assert {frame.shape for frame in frames} == {(header.Rows, header.Columns)}


def test_a_long_cine_needs_memory_for_few_frames(tmp_path: Path, write_ultrasound: Write) -> None:
    frames = np.zeros((60, 256, 256), np.uint8)
    frames[:, 0, 0] = np.arange(60)
    for syntax in (ExplicitVRLittleEndian, JPEG2000Lossless):
        path = write_ultrasound(tmp_path / f"{syntax}.dcm", frames, syntax)
        clip = open_dicom(path)
        tracemalloc.start()
        numbers = [int(frame[0, 0]) for frame in clip.read()]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert numbers == list(range(60))
        assert peak < frames.nbytes / 4


class TestDamage:
    @pytest.mark.parametrize("syntax", LOSSLESS)
    @pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.99])
    def test_a_truncated_file_is_named(
        self, tmp_path: Path, write_ultrasound: Write, syntax: str, share: float
    ) -> None:
        path = write_ultrasound(tmp_path / "x.dcm", speckle((3, 40, 40)), syntax)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(DataError, match=r"x\.dcm"):
            list(open_clip(path).read())

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.sampled_from(LOSSLESS), st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8))
    def test_damage_gives_frames_or_words(
        self, tmp_path: Path, write_ultrasound: Write, syntax: str, changes: list[tuple[float, int]]
    ) -> None:
        path = write_ultrasound(tmp_path / "x.dcm", speckle((2, 32, 32)), syntax)
        content = bytearray(path.read_bytes())
        for place, value in changes:
            content[int(place * len(content))] = value
        path.write_bytes(bytes(content))
        frames: list[np.ndarray] = []
        # Anything else that is raised fails the test.
        with suppress(DataError):
            frames = list(open_dicom(path).read())
        assert all(frame.ndim == 2 and frame.dtype in (np.uint8, np.uint16) for frame in frames)

    def test_a_text_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "x.dcm").write_text("This is not a picture, and it is long enough to be looked into. " * 5)
        with pytest.raises(DataError, match=r"x\.dcm is"):
            open_clip(tmp_path / "x.dcm")

    @pytest.mark.parametrize(
        ("attributes", "words"),
        [
            ({"Rows": 60000, "Columns": 60000}, "claims 60000×60000 pixels, more than"),
            ({"Rows": 0}, "claims frames of"),
            ({"NumberOfFrames": 10**6}, "ends before the last of its 1000000 frames"),
            ({"NumberOfFrames": -1}, "claims -1 frames"),
            ({"BitsAllocated": 32}, "8 or 16 bits"),
            ({"BitsStored": 12}, "12 bits a sample in 8"),
            ({"PhotometricInterpretation": "CMYK"}, "colours of kind CMYK"),
            ({"SamplesPerPixel": 4}, "4 samples a pixel"),
            ({"HighBit": 3}, "below bit 3"),
        ],
    )
    def test_a_lying_header_is_refused_before_decoding(
        self, tmp_path: Path, write_ultrasound: Write, attributes: dict[str, object], words: str
    ) -> None:
        path = write_ultrasound(tmp_path / "x.dcm", speckle((2, 12, 12)), **attributes)
        with pytest.raises(DataError, match=rf"x\.dcm .*{words}"):
            open_clip(path)

    @pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000Lossless, JPEGLSLossless])
    def test_a_lying_codestream_is_not_decoded(self, tmp_path: Path, write_ultrasound: Write, syntax: str) -> None:
        path = write_ultrasound(tmp_path / "x.dcm", speckle((1, 12, 12)))
        large = speckle((600, 700))
        if syntax == JPEGBaseline8Bit:
            stream = jpeg(large)
        else:
            other = dcmread(write_ultrasound(tmp_path / "large.dcm", large[None], syntax))
            stream = next(generate_frames(other.PixelData, number_of_frames=1))
        encapsulated(path, [stream], syntax, "MONOCHROME2")
        with pytest.raises(DataError, match=r"x\.dcm: frame 1 .* 700×600 pixels, the header says 12×12"):
            list(open_clip(path).read())

    def test_run_lengths_without_end_are_not_decoded(self, tmp_path: Path, write_ultrasound: Write) -> None:
        path = write_ultrasound(tmp_path / "x.dcm", speckle((1, 12, 12)))
        encapsulated(path, [b"\x01\0\0\0\x40\0\0\0" + b"\0" * 56 + b"\x81\xff" * 5000], RLELossless, "MONOCHROME2")
        with pytest.raises(DataError, match="too many for its size"):
            list(open_clip(path).read())

    def test_a_deflated_bomb_is_refused(
        self, tmp_path: Path, write_ultrasound: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write_ultrasound(tmp_path / "x.dcm", np.zeros((9, 999, 999), np.uint8), DeflatedExplicitVRLittleEndian)
        monkeypatch.setattr(dicom_file, "MAX_INFLATED", 3_000_000)
        with pytest.raises(DataError, match=r"x\.dcm unpacks to more than 3000000 bytes"):
            open_clip(path)

    def test_too_few_frames_are_said(self, tmp_path: Path, write_ultrasound: Write) -> None:
        path = write_ultrasound(tmp_path / "x.dcm", speckle((3, 12, 12)), RLELossless)
        dataset = dcmread(path)
        dataset.NumberOfFrames = 5
        dataset.save_as(path)
        frames = open_clip(path).read()
        with pytest.raises(DataError, match=r"x\.dcm"):
            list(frames)

    def test_no_picture_inside(self, tmp_path: Path, write_ultrasound: Write) -> None:
        dataset = dcmread(write_ultrasound(tmp_path / "x.dcm", speckle((1, 9, 9))))
        del dataset.PixelData
        dataset.save_as(tmp_path / "x.dcm")
        with pytest.raises(DataError, match=r"x\.dcm holds no picture \(Ultrasound Image Storage\)"):
            open_clip(tmp_path / "x.dcm")

    def test_the_limit_is_that_of_pictures(
        self, tmp_path: Path, write_ultrasound: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write_ultrasound(tmp_path / "x.dcm", speckle((1, 12, 12)))
        monkeypatch.setattr(readers, "MAX_PIXELS", 143)
        with pytest.raises(DataError, match="more than the 143 allowed"):
            open_clip(path)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=6), st.integers(0, 120), st.integers(1, 50))
def test_fragments_read_as_one_file(parts: list[bytes], start: int, length: int) -> None:
    joined, stream, places = b"".join(parts), b"", []
    for part in parts:
        stream += b"ITEMSIZE"
        places.append((len(stream), len(part)))
        stream += part
    fragments = io.BufferedReader(Fragments(io.BytesIO(stream), places))
    assert fragments.read() == joined
    fragments.seek(min(start, len(joined)))
    assert fragments.read(length) == joined[min(start, len(joined)) :][:length]
    assert fragments.seek(0, io.SEEK_END) == len(joined)


def jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def encapsulated(path: Path, streams: list[bytes], syntax: str, interpretation: str, fragments: int = 1) -> None:
    dataset = dcmread(path)
    dataset.PixelData = encapsulate(streams, fragments_per_frame=fragments)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.PhotometricInterpretation = interpretation
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
