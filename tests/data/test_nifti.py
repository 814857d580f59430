"""NIfTI files: axes, values, spacing, and what is refused before anything is decoded."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgefusion.data import nifti
from edgefusion.data.ingest import REPORT, ingest
from edgefusion.data.nifti import open_nifti, open_nifti_mask
from edgefusion.data.sources import has_many_frames, open_clip
from edgefusion.errors import DataError

FRAMES = np.random.default_rng(0).integers(0, 250, (3, 20, 30)).astype(np.uint8)


def write(path: Path, values: Any, unit: str | None = "mm", zooms: tuple[float, float] = (0.1, 0.2), v2: bool = False):
    """Frames N×H×W, or one H×W, as ITK lays them out: columns × rows × frames."""
    image = (nib.Nifti2Image if v2 else nib.Nifti1Image)(np.asarray(values).T, np.eye(4))
    image.header.set_xyzt_units(unit or "unknown")
    image.header.set_zooms((*zooms, 1.0, 1.0, 1.0)[: image.ndim])
    nib.save(image, path)
    return path


def patched(path: Path, offset: int, content: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[offset : offset + len(content)] = content
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize("name", ["x.nii", "x.NII.GZ"])
@pytest.mark.parametrize("v2", [False, True])
def test_the_axes_are_columns_rows_and_frames(tmp_path: Path, name: str, v2: bool) -> None:
    clip = open_clip(write(tmp_path / name, FRAMES, v2=v2))
    np.testing.assert_array_equal(list(clip.read()), FRAMES)
    assert (clip.count, clip.rate, clip.spacing) == (3, None, (0.2, 0.1))
    assert has_many_frames(tmp_path / name)


def test_a_single_frame_is_a_still_and_further_axes_may_be_one_long(tmp_path: Path) -> None:
    for values in (FRAMES[0], FRAMES[:1], FRAMES[None, None, :1]):
        path = write(tmp_path / "x.nii", values)
        np.testing.assert_array_equal(next(open_clip(path).read()), FRAMES[0])
        assert not has_many_frames(path)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "u4", "f4", "f8"])
def test_whole_numbers_up_to_255_are_eight_bits(tmp_path: Path, kind: str, order: str) -> None:
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(np.dtype(order + kind))
    nib.save(nib.Nifti1Image(FRAMES.T.astype(order + kind), np.eye(4), header), tmp_path / "x.nii")
    frames = list(open_nifti(tmp_path / "x.nii").read())
    assert frames[0].dtype == np.uint8
    np.testing.assert_array_equal(frames, FRAMES)


def test_other_values_take_the_whole_range_of_sixteen_bits(tmp_path: Path) -> None:
    deep = FRAMES.astype(np.uint16) * 200
    np.testing.assert_array_equal(list(open_nifti(write(tmp_path / "a.nii", deep)).read()), deep)
    np.testing.assert_array_equal(list(open_nifti(write(tmp_path / "b.nii", deep.astype(np.int32))).read()), deep)
    unit = (deep / 65535).astype(np.float32)
    np.testing.assert_array_equal(list(open_nifti(write(tmp_path / "c.nii", unit)).read()), deep)
    decibel = FRAMES.astype(np.float32) / 4 - 60
    frames = np.array(list(open_nifti(write(tmp_path / "d.nii", decibel)).read()))
    assert (frames.min(), frames.max(), frames.dtype) == (0, 65535, np.uint16)
    assert np.corrcoef(frames.ravel(), decibel.ravel())[0, 1] > 0.999999


def test_the_scaling_of_the_header_comes_first(tmp_path: Path) -> None:
    path = write(tmp_path / "x.nii", FRAMES // 2)
    patched(path, 112, np.array([2.0, 1.0], "<f4").tobytes())
    np.testing.assert_array_equal(list(open_nifti(path).read()), FRAMES // 2 * 2 + 1)
    patched(path, 112, np.array([0.0, 7.0], "<f4").tobytes())  # no scaling, by the standard
    np.testing.assert_array_equal(list(open_nifti(path).read()), FRAMES // 2)


@pytest.mark.parametrize(
    ("unit", "zooms", "expected"),
    [
        ("mm", (0.05, 0.06), (0.06, 0.05)),
        ("meter", (0.0001, 0.0001), (0.1, 0.1)),
        ("micron", (50, 60), (0.06, 0.05)),
        (None, (0.05, 0.06), None),
        ("mm", (1, 1), None),
    ],
)
def test_spacing_in_mm_or_unknown(tmp_path: Path, unit: str, zooms: tuple[float, float], expected: Any) -> None:
    spacing = open_nifti(write(tmp_path / "x.nii", FRAMES, unit, zooms)).spacing
    assert spacing == (None if expected is None else pytest.approx(expected))


class TestMasks:
    @pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float64])
    def test_values_are_labels(self, tmp_path: Path, kind: type) -> None:
        labels = (FRAMES % 4).astype(kind)
        np.testing.assert_array_equal(list(open_nifti_mask(write(tmp_path / "x.nii", labels)).read()), FRAMES % 4)

    def test_black_and_white_is_label_1(self, tmp_path: Path) -> None:
        path = write(tmp_path / "x.nii", (FRAMES % 2) * np.uint8(255))
        np.testing.assert_array_equal(list(open_nifti_mask(path).read()), FRAMES % 2)

    @pytest.mark.parametrize("values", [FRAMES, FRAMES / 250, FRAMES - 300.0, FRAMES * np.nan])
    def test_values_that_are_no_labels_are_refused(self, tmp_path: Path, values: Any) -> None:
        with pytest.raises(DataError, match="no labels"):
            list(open_nifti_mask(write(tmp_path / "x.nii", values)).read())


class TestRefusals:
    @pytest.mark.parametrize(
        ("offset", "content", "words"),
        [
            (0, b"\1\2\3\4", "not a NIfTI file"),
            (344, b"ni1\0", "with its pixels in it"),
            (40, np.array([9], "<i2").tobytes(), "its axes are"),
            (42, np.array([-4], "<i2").tobytes(), "its axes are"),
            (40, np.array([4, 30, 20, 1, 3], "<i2").tobytes(), "more than three axes"),
            (42, np.array([32767, 32767], "<i2").tobytes(), "claims 32767×32767 pixels"),
            (70, np.array([128], "<i2").tobytes(), "has colours"),
            (70, np.array([1792], "<i2").tobytes(), "samples of type 1792"),
            (108, np.array([1e30], "<f4").tobytes(), "begin at byte"),
            (108, np.array([np.nan], "<f4").tobytes(), "begin at byte"),
            (112, np.array([np.inf], "<f4").tobytes(), "scaled by"),
            (112, np.array([1, np.nan], "<f4").tobytes(), "scaled by"),
        ],
    )
    def test_headers(self, tmp_path: Path, offset: int, content: bytes, words: str) -> None:
        path = patched(write(tmp_path / "x.nii", FRAMES), offset, content)
        with pytest.raises(DataError, match=words):
            open_nifti(path)

    def test_what_gzip_would_expand_is_bounded_by_the_header(self, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr(nifti, "MAX_EXPANDED", FRAMES.size)
        assert len(list(open_nifti(write(tmp_path / "x.nii.gz", FRAMES)).read())) == 3
        monkeypatch.setattr(nifti, "MAX_EXPANDED", FRAMES.size - 1)
        assert len(list(open_nifti(write(tmp_path / "x.nii", FRAMES)).read())) == 3
        with pytest.raises(DataError, match=r"claims 3 frames, 1800 bytes"):
            open_nifti(tmp_path / "x.nii.gz")

    def test_what_follows_the_pixels_is_not_expanded(self, tmp_path: Path, monkeypatch: Any) -> None:
        content = write(tmp_path / "x.nii", FRAMES).read_bytes()
        (tmp_path / "x.nii.gz").write_bytes(gzip.compress(content + bytes(64 * 1024 * 1024)))
        read: list[int] = []
        whole = gzip._GzipReader.read  # type: ignore[attr-defined]
        monkeypatch.setattr(
            gzip._GzipReader,  # type: ignore[attr-defined]
            "read",
            lambda self, size=-1: read.append(len(found := whole(self, size))) or found,  # type: ignore[func-returns-value]
        )
        assert len(list(open_nifti(tmp_path / "x.nii.gz").read())) == 3
        assert 0 < sum(read) < 1024 * 1024

    def test_a_file_cut_off_keeps_the_frames_before(self, tmp_path: Path) -> None:
        path = write(tmp_path / "x.nii", FRAMES)
        path.write_bytes(path.read_bytes()[:-1])
        frames = open_nifti(path).read()
        assert [next(frames).shape, next(frames).shape] == [(20, 30)] * 2
        with pytest.raises(DataError, match="cut off: frame 3 of 3"):
            next(frames)

    def test_a_flipped_bit_fails_the_checksum_of_gzip(self, tmp_path: Path) -> None:
        path = tmp_path / "x.nii.gz"
        content = gzip.compress(write(tmp_path / "x.nii", FRAMES).read_bytes(), compresslevel=0)
        path.write_bytes(content)
        patched(path, len(content) - 100, bytes([content[-100] ^ 1]))
        with pytest.raises(DataError, match="is damaged: CRC"):
            list(open_nifti(path).read())

    @pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
    def test_missing_empty_and_other_files(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(DataError, match="cannot be read"):
            open_nifti(tmp_path / name)
        (tmp_path / name).touch()
        with pytest.raises(DataError, match=r"is empty \(0 bytes\)"):
            open_nifti(tmp_path / name)
        (tmp_path / name).write_text("This is not a picture. " * 40)
        with pytest.raises(DataError, match=f"{name} is"):
            open_nifti(tmp_path / name)

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(offset=st.integers(0, 351), content=st.binary(min_size=1, max_size=8), gz=st.booleans())
    def test_any_header_gives_frames_or_words(self, tmp_path: Path, offset: int, content: bytes, gz: bool) -> None:
        path = patched(write(tmp_path / "x.nii", FRAMES), offset, content)
        if gz:
            (tmp_path / "x.nii.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
            path = tmp_path / "x.nii.gz"
        try:
            for frame in open_nifti(path).read():
                assert frame.dtype in (np.uint8, np.uint16)
                assert frame.ndim == 2
        except DataError:
            pass


class TestIngest:
    def test_pairs_become_frames_with_spacing(self, tmp_path: Path, make_tissue: Any, make_disc: Any) -> None:
        stack = np.stack([make_tissue(seed) for seed in range(3)])
        masks = np.stack([make_disc(radius=radius, value=1) for radius in (5, 7, 9)])
        (tmp_path / "in").mkdir()
        write(tmp_path / "in" / "sweep.nii.gz", stack)
        write(tmp_path / "in" / "sweep_mask.nii.gz", masks)
        write(tmp_path / "in" / "still.nii", make_tissue(7))
        study = ingest(tmp_path / "in", tmp_path / "study")
        ids = ["still", "sweep_f00001", "sweep_f00002", "sweep_f00003"]
        assert study.frames["frame_id"].tolist() == ids
        assert study.frames["patient_id"].tolist() == ["still", "sweep", "sweep", "sweep"]
        assert study.frames["spacing_row_mm"].tolist() == [0.2] * 4
        assert study.frames["source"].tolist()[1] == "sweep.nii.gz, frame 1"
        np.testing.assert_array_equal(study.image(ids[2]), stack[1])
        np.testing.assert_array_equal(study.mask(ids[2]), masks[1])
        assert study.mask("still") is None

    def test_nnunet_and_separate_folders(self, tmp_path: Path, make_tissue: Any, make_disc: Any) -> None:
        for images, labels, ending in (("imagesTr", "labelsTr", "_0000"), ("images", "masks", "")):
            source = tmp_path / images
            for part in (images, labels):
                (source / part).mkdir(parents=True)
            for case in ("a", "b"):
                write(source / images / f"{case}{ending}.nii.gz", make_tissue(ord(case)).astype(np.int16))
                write(source / labels / f"{case}.nii.gz", make_disc(value=1))
            study = ingest(source, tmp_path / f"study-{images}")
            assert study.frames["frame_id"].tolist() == ["a", "b"]
            np.testing.assert_array_equal(study.image("b"), make_tissue(ord("b")))
            assert set(np.unique(study.mask("a"))) == {0, 1}

    def test_problems_are_listed(self, tmp_path: Path, make_tissue: Any, make_disc: Any) -> None:
        source = tmp_path / "in"
        source.mkdir()
        stack = np.stack([make_tissue(1), make_tissue(2) * 0, make_tissue(3)])
        write(source / "a.nii", stack)
        write(source / "b.nii", stack)
        write(source / "b_mask.nii", make_disc(value=1))
        path = write(source / "c.nii", stack)
        path.write_bytes(path.read_bytes()[:-1])
        (source / "d_f00001.nii").write_bytes((source / "a.nii").read_bytes())
        write(source / "d.nii", stack[0])
        study = ingest(source, tmp_path / "study")
        assert study.frames["frame_id"].tolist() == ["a_f00001", "a_f00003", "c_f00001", "d"]
        report = (study.path / REPORT).read_text()
        for words in ("blank", "has not as many frames", "cut off: frame 3 of 3", "would clash with that of a frame"):
            assert words in report
