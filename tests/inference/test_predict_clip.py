"""Clips come out as they should: every frame, in time, all of it or nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from pydicom import dcmread
from torch import Tensor, nn

from edgefusion.bundle import Bundle
from edgefusion.data.clip import Clip, Region
from edgefusion.data.readers import read_labels
from edgefusion.data.study import write_png
from edgefusion.data.video import VideoFrames, open_video
from edgefusion.data.video_writer import VideoWriter
from edgefusion.errors import DataError, UsageError
from edgefusion.inference import clip_job, clip_writers
from edgefusion.inference import predict_clip as module
from edgefusion.inference.predict import predict_files
from edgefusion.inference.predict_clip import predict_clip, read_crop
from edgefusion.inference.predictor import Predictor
from edgefusion.models.blocks import SegmentationOutput

MakeBundle = Callable[..., Bundle]

FORMATS = ("png", "overlay", "json", "video")


def picture(number: int, size: tuple[int, int] = (60, 80)) -> NDArray[np.uint8]:
    """A bright rectangle that grows and then shrinks, in tissue that never rests."""
    image = np.random.default_rng(number).integers(20, 60, size, dtype=np.uint8)
    image[20:40, 20 : 30 + 2 * abs(number % 24 - 12)] = 220
    return image


def make_clip(path: Path, count: int = 20, times: list[float] | None = None) -> Path:
    with VideoWriter(path, 25) as writer:
        for number in range(count):
            writer.write(picture(number), times[number] if times else None)
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "in" / "clip.mp4")


def tree(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if name != "predict-report.csv"}


def test_every_frame_in_every_format(make_bundle: MakeBundle, clip: Path, tmp_path: Path) -> None:
    out, bundle = tmp_path / "out", make_bundle(gains=(20.0, 1.0))
    (summary,) = predict_files([clip], out, bundle, FORMATS)
    assert (summary["status"], summary["frames"], summary["dropped"], summary["damaged"]) == ("done", 20, 0, 0)
    expected = [Predictor(bundle).predict(image) for image in open_video(clip).read()]
    numbers = [f"{number:06d}.png" for number in range(20)]
    folders = [f"clip_{kind}/{name}" for kind in ("mask", "overlay") for name in numbers]
    assert set(tree(out)) == {"clip.json", "clip_overlay.mp4", "clip.csv", *folders}
    for name, prediction in zip(numbers, expected, strict=True):
        np.testing.assert_array_equal(read_labels(out / "clip_mask" / name), prediction.mask)
    table = pd.read_csv(out / "clip.csv")
    assert list(table.columns) == [
        *("frame", "time_s", "presence_nerve", "area_px_nerve", "presence_vessel", "area_px_vessel")
    ]
    assert list(table["frame"]) == list(range(20))
    np.testing.assert_allclose(table["time_s"], np.arange(20) / 25, atol=1e-3)
    assert list(table["area_px_nerve"]) == [prediction.area_px[0] for prediction in expected]
    assert table["area_px_nerve"].nunique() > 5
    said = json.loads((out / "clip.json").read_text())
    assert (said["clip"], said["rate"], said["region"], said["smoothing"]) == ("clip", 25, None, 0)
    assert [frame["frame"] for frame in said["frames"]] == list(range(20))
    assert [frame["labels"][0]["area_px"] for frame in said["frames"]] == list(table["area_px_nerve"])
    shown = open_video(out / "clip_overlay.mp4")
    assert (shown.count, shown.rate) == (20, 25)


def test_the_overlay_shows_the_outline_on_the_frame(make_bundle: MakeBundle, clip: Path, tmp_path: Path) -> None:
    predict_files([clip], tmp_path, make_bundle(), ["video", "overlay"])
    with av.open(str(tmp_path / "clip_overlay.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    for number, frame in enumerate(frames):
        drawn = cv2.imread(str(tmp_path / "clip_overlay" / f"{number:06d}.png"))[..., ::-1].astype(int)
        is_outline = (drawn[..., 0] > 200) & (drawn[..., 1] < 60)
        assert is_outline.sum() > 50
        purple = (frame[..., 0] + frame[..., 2]) / 2 - frame[..., 1]
        assert purple[is_outline].mean() > 60
        assert np.abs(purple[~cv2.dilate(is_outline.astype(np.uint8), np.ones((5, 5))).astype(bool)]).mean() < 10


def test_times_of_a_variable_rate_are_kept(make_bundle: MakeBundle, tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.5, 0.55, 2.0]
    predict_files([make_clip(tmp_path / "x.mp4", 5, times)], tmp_path / "out", make_bundle(), ["video"])
    np.testing.assert_allclose(pd.read_csv(tmp_path / "out" / "x.csv")["time_s"], times, atol=1e-3)
    reader = open_video(tmp_path / "out" / "x_overlay.mp4").read()
    assert isinstance(reader, VideoFrames)
    assert [reader.time_s for _ in reader] == pytest.approx(times, abs=1e-3)


def test_pages_of_a_tiff_are_a_clip(make_bundle: MakeBundle, tmp_path: Path) -> None:
    cv2.imwritemulti(str(tmp_path / "x.tif"), [picture(number) for number in range(6)])
    (summary,) = predict_files([tmp_path / "x.tif"], tmp_path / "out", make_bundle(), ["video", "png"])
    assert summary["frames"] == 6
    for number in range(6):
        mask = read_labels(tmp_path / "out" / "x_mask" / f"{number:06d}.png")
        np.testing.assert_array_equal(mask, Predictor(make_bundle()).predict(picture(number)).mask)


def test_smoothing_is_passed_on(make_bundle: MakeBundle, clip: Path, tmp_path: Path) -> None:
    predict_files([clip], tmp_path, make_bundle(), ["png"], smoothing=0.7)
    expected = Predictor(make_bundle()).stream(open_video(clip).read(), smoothing=0.7)
    for number, prediction in enumerate(expected):
        np.testing.assert_array_equal(read_labels(tmp_path / "clip_mask" / f"{number:06d}.png"), prediction.mask)


def test_pictures_and_clips_go_together(make_bundle: MakeBundle, clip: Path, tmp_path: Path) -> None:
    write_png(clip.parent / "still.png", picture(3))
    make_clip(clip.parent / "deep" / "clip.mkv.mp4", 4)
    (clip.parent / "broken.mov").write_text("not a video")
    out = tmp_path / "out"
    summaries = predict_files([clip.parent], out, make_bundle(), ["overlay", "video", "kaggle"])
    assert [(summary["name"], summary["status"]) for summary in summaries] == [
        *(("still", "done"), ("broken", "failed"), ("clip", "done"), ("clip.mkv", "done"))
    ]
    assert {path.name for path in out.iterdir()} == {
        *("still_overlay.png", "submission.csv", "predict-report.csv", "clip_overlay", "clip_overlay.mp4", "clip.csv"),
        *("clip.mkv_overlay", "clip.mkv_overlay.mp4", "clip.mkv.csv"),
    }


def test_formats_that_fit_no_input_are_wrong_use(make_bundle: MakeBundle, clip: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "still.png", picture(3))
    with pytest.raises(UsageError, match=r"still\.png is a still picture, .*as video"):
        predict_files([tmp_path / "still.png"], tmp_path / "out", make_bundle(), ["video"])
    with pytest.raises(UsageError, match=r"clip\.mp4 is a clip, .*as kaggle"):
        predict_files([clip], tmp_path / "out", make_bundle(), ["kaggle"])
    with pytest.raises(UsageError, match="smoothing"):
        predict_files([clip], tmp_path / "out", make_bundle(), ["png"], smoothing=1.0)
    assert not (tmp_path / "out").exists()


def test_a_second_call_keeps_what_is_complete(make_bundle: MakeBundle, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def status(*formats: str, **options: Any) -> str:
        (summary,) = predict_files([clip], out, make_bundle(), formats or FORMATS, **options)
        assert summary["frames"] == 20
        assert isinstance(summary["frames"], int)
        return str(summary["status"])

    assert [status(), status(), status("video")] == ["done", "kept", "kept"]
    (out / "clip_mask" / "000007.png").unlink()
    assert [status("video"), status(), status()] == ["kept", "done", "kept"]
    (out / "clip.csv").unlink()
    assert [status(), status()] == ["done", "kept"]
    assert [status(smoothing=0.5), status(smoothing=0.5), status()] == ["done", "kept", "done"]
    assert [status(crop=Region(0, 0, 40, 40)), status(crop="none")] == ["done", "done"]
    make_clip(clip, 20, [n / 10 for n in range(20)])
    assert status(crop="none") == "done"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_is_cut_short_leaves_nothing_half_written(
    make_bundle: MakeBundle, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    out = tmp_path / "out"
    first = make_clip(tmp_path / "in" / "a.mp4", 5)
    original, calls = clip_writers.draw_overlay, []

    def failing(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2 * 5 + 2 * 8:
            raise error(5, "the disk is full")
        return original(*arguments)

    monkeypatch.setattr(clip_writers, "draw_overlay", failing)
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            predict_files([first, clip], out, make_bundle(), FORMATS)
    else:
        assert predict_files([first, clip], out, make_bundle(), FORMATS)[1]["status"] == "failed"
    assert {path.name for path in out.iterdir()} == {
        *("a.json", "a.csv", "a_mask", "a_overlay", "a_overlay.mp4", "predict-report.csv")
    }
    monkeypatch.undo()
    summaries = predict_files([first, clip], out, make_bundle(), FORMATS)
    assert [summary["status"] for summary in summaries] == ["kept", "done"]
    predict_files([first, clip], tmp_path / "undisturbed", make_bundle(), FORMATS)
    videos = {"a_overlay.mp4", "clip_overlay.mp4"}
    one, other = tree(out), tree(tmp_path / "undisturbed")
    # The encoder does not give the same bytes each time.
    assert {name: one[name] for name in one.keys() - videos} == {name: other[name] for name in other.keys() - videos}
    assert one.keys() == other.keys()


def test_a_clip_that_was_cut_off_gives_what_is_there(make_bundle: MakeBundle, clip: Path, tmp_path: Path) -> None:
    content = clip.read_bytes()
    clip.write_bytes(content[: len(content) * 2 // 3])
    (summary,) = predict_files([clip], tmp_path / "out", make_bundle(), ["video"])
    assert 3 < summary["frames"] < 20
    assert len(pd.read_csv(tmp_path / "out" / "clip.csv")) == summary["frames"]


def bordered(count: int = 30) -> Iterator[NDArray[np.uint8]]:
    for number in range(count):
        screen = np.full((100, 130), 200, np.uint8)
        screen[20:80, 30:110] = picture(number)
        yield screen


def test_the_region_is_found_and_shown_and_can_be_chosen(
    make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.mp4"
    with VideoWriter(path, 25) as writer:
        for screen in bordered():
            writer.write(screen)
    bundle = make_bundle()
    areas = {}
    for name, crop in (("auto", "auto"), ("none", "none"), ("chosen", Region(22, 32, 50, 70))):
        predict_files([path], tmp_path / name, bundle, ["json", "overlay", "png"], crop=crop)  # type: ignore[arg-type]
        region = json.loads((tmp_path / name / "x.json").read_text())["region"]
        areas[name] = (region, read_labels(tmp_path / name / "x_mask" / "000003.png"))
    found = areas["auto"][0]
    assert np.abs(np.subtract(list(found.values()), (20, 30, 60, 80))).max() <= 5
    assert areas["none"][0] is None
    assert areas["chosen"][0] == {"top": 22, "left": 32, "height": 50, "width": 70}
    # With the bright border in view, this network finds that.
    assert areas["none"][1][5, 5] == 1
    assert areas["auto"][1][:17].sum() == areas["chosen"][1][:22].sum() == 0
    assert areas["auto"][1][30, 55] == 0 < areas["auto"][1][50, 60]
    drawn = cv2.imread(str(tmp_path / "chosen" / "x_overlay" / "000003.png"))
    assert (drawn[22, 32:102] == 128).all()
    assert (drawn[71, 32:102] == 128).all()
    assert "the image was found at" in capsys.readouterr().err


def test_a_region_that_the_file_states_wins(make_bundle: MakeBundle, tmp_path: Path) -> None:
    stated = Region(18, 28, 64, 84)
    clip = Clip(tmp_path / "x", lambda: bordered(5), 5, rate=10, spacing=(0.1, 0.1), region=stated)
    predict_clip(clip, Predictor(make_bundle()), tmp_path, "x", ["json", "video"])
    assert json.loads((tmp_path / "x.json").read_text())["region"]["top"] == 18
    table = pd.read_csv(tmp_path / "x.csv")
    np.testing.assert_allclose(table["area_mm2_nerve"], table["area_px_nerve"] * 0.01, rtol=1e-3)
    np.testing.assert_allclose(table["time_s"], np.arange(5) / 10)


def test_dicom_files_are_found_and_looked_at_in_their_region(
    make_bundle: MakeBundle, tmp_path: Path, write_ultrasound: Callable[..., Path]
) -> None:
    screens = np.stack(list(bordered(6)))
    regions = [{"left": 30, "top": 20, "right": 109, "bottom": 79}]
    write_ultrasound(tmp_path / "in" / "still", screens[:1], regions=regions)
    write_ultrasound(tmp_path / "in" / "deep" / "cine.dcm", screens, regions=regions, rate=12.5)
    (tmp_path / "in" / "notes.txt").write_text("Nothing to see here.")
    out = tmp_path / "out"
    still, cine = predict_files([tmp_path / "in"], out, make_bundle(), ["png", "overlay", "video"])
    assert (still["name"], cine["name"], cine["frames"]) == ("still", "cine", 6)
    region = Region(20, 30, 60, 80)
    predictor = Predictor(make_bundle())
    for number, screen in enumerate(screens):
        expected = predictor.predict(screen, region=region)
        np.testing.assert_array_equal(read_labels(out / "cine_mask" / f"{number:06d}.png"), expected.mask)
    np.testing.assert_array_equal(
        read_labels(out / "still_mask.png"), predictor.predict(screens[0], region=region).mask
    )
    assert still["area_mm2_nerve"] == pytest.approx(still["area_px_nerve"] * 0.02, rel=1e-3)
    table = pd.read_csv(out / "cine.csv")
    np.testing.assert_allclose(table["time_s"], np.arange(6) / 12.5, atol=1e-3)
    np.testing.assert_allclose(table["area_mm2_nerve"], table["area_px_nerve"] * 0.02, rtol=1e-3)
    assert (cv2.imread(str(out / "still_overlay.png"))[20, 30:110] == 128).all()


def test_a_region_that_is_the_whole_frame_is_not_drawn() -> None:
    image = picture(0)
    prediction = SimpleNamespace(contours=[], labels=["nerve"])
    whole = clip_writers.draw_overlay(image, prediction, Region(0, 0, 60, 80))  # type: ignore[arg-type]
    np.testing.assert_array_equal(whole[..., 0], image)


def test_a_crop_outside_the_frame_is_named(make_bundle: MakeBundle, clip: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not lie in a frame"):
        predict_files([clip], tmp_path / "out", make_bundle(), ["video"], crop=Region(0, 0, 600, 800))


def test_a_crop_is_for_pictures_too(make_bundle: MakeBundle, tmp_path: Path) -> None:
    write_png(tmp_path / "x.png", next(bordered()))
    region = Region(20, 30, 60, 80)
    predict_files([tmp_path / "x.png"], tmp_path / "out", make_bundle(), ["png"], crop=region)
    expected = Predictor(make_bundle()).predict(next(bordered()), region=region).mask
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "x_mask.png"), expected)


def test_crops_are_read() -> None:
    assert (read_crop("auto"), read_crop("none")) == ("auto", "none")
    assert read_crop("1, 2,30,40") == Region(1, 2, 30, 40)
    for wrong in ("", "all", "1,2,3", "1,2,0,4", "1,2,-3,4", "a,b,c,d"):
        with pytest.raises(UsageError, match="is not a crop"):
            read_crop(wrong)


class Counting(nn.Module):
    """Notes with how many threads it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(20.0))
        self.threads: set[int] = set()

    def forward(self, x: Tensor) -> SegmentationOutput:
        self.threads.add(torch.get_num_threads())
        return SegmentationOutput(x[:, :1] * self.gain, None, None)


def test_the_network_leaves_a_core_to_the_other_stages(
    make_bundle: MakeBundle, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "cores", lambda: 3)
    torch.set_num_threads(3)
    model = Counting()
    predict_files([clip], tmp_path / "out", make_bundle(model=model), ["video"])
    assert model.threads == {2}
    assert torch.get_num_threads() == 3


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def sender(port: int) -> Iterator[threading.Event]:
    stop = threading.Event()

    def send() -> None:
        with av.open(f"udp://127.0.0.1:{port}?pkt_size=1316", "w", format="mpegts") as container:
            stream: Any = container.add_stream("libx264", rate=50)
            stream.width, stream.height, stream.pix_fmt = 80, 60, "yuv420p"
            stream.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "10"}
            number = 0
            while not stop.wait(0.015):
                frame = av.VideoFrame.from_ndarray(picture(number), format="gray")
                container.mux(stream.encode(frame.reformat(format="yuv420p")))
                number += 1

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("end", ["interrupt", "silence"])
def test_a_live_source_is_recorded_until_it_ends_or_is_interrupted(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    original = clip_job.open_live
    monkeypatch.setattr(clip_job, "open_live", lambda url: original(url, timeout_s=1, patience_s=0.5))
    url = f"udp://127.0.0.1:{free_port()}"
    with sender(int(url.rpartition(":")[2])) as stop:
        how = stop.set if end == "silence" else lambda: os.kill(os.getpid(), signal.SIGINT)
        timer = threading.Timer(2, how)
        timer.start()
        (summary,) = predict_files([url], tmp_path, make_bundle(), ["video", "json"])
        timer.join()
    name = summary["name"]
    assert name.startswith("live-")
    assert summary["input"].startswith(url)
    assert summary["frames"] > 5
    table = pd.read_csv(tmp_path / f"{name}.csv")
    assert len(table) == summary["frames"]
    assert table["frame"].is_monotonic_increasing
    assert table["time_s"][0] == 0
    assert 0.05 < table["time_s"].iloc[-1] < 30
    assert summary["dropped"] >= table["frame"].iloc[-1] + 1 - len(table)
    assert len(list(open_video(tmp_path / f"{name}_overlay.mp4").read())) == len(table)
    assert len(json.loads((tmp_path / f"{name}.json").read_text())["frames"]) == len(table)
    report = pd.read_csv(tmp_path / "predict-report.csv")
    assert list(report["status"]) == ["done"]


def test_a_live_source_that_is_not_there_is_named(make_bundle: MakeBundle, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(DataError, match=r"rtsp://127\.0\.0\.1:9/x cannot be opened"):
        predict_files(["rtsp://me:pw@127.0.0.1:9/x"], tmp_path / "out", make_bundle(), ["video"])
    assert time.monotonic() - started < 10


def test_a_dicom_clip_and_still_give_dicom_beside_the_rest(
    make_bundle: MakeBundle, write_ultrasound: Callable[..., Path], tmp_path: Path
) -> None:
    frames = np.stack([picture(shift) for shift in range(3)])
    folder, out = tmp_path / "in", tmp_path / "out"
    cine = write_ultrasound(folder / "cine", frames)
    still = write_ultrasound(folder / "still", frames[:1], rate=None)
    write_png(folder / "picture.png", frames[0])
    formats = ["png", "dicom-seg", "dicom-sr", "dicom-sc"]
    done = predict_files([folder], out, make_bundle(), formats)
    assert [summary["status"] for summary in done] == ["done"] * 3
    for source, count in ((cine, 3), (still, 1)):
        found = dcmread(out / f"{source.name}_seg.dcm")
        assert found.Modality == "SEG"
        assert dcmread(out / f"{source.name}_sr.dcm").Modality == "SR"
        referred = found.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]
        assert referred.ReferencedSOPInstanceUID == dcmread(source).SOPInstanceUID
        assert len(list(out.glob(f"{source.name}_mask*"))) == 1
        assert dcmread(out / f"{source.name}_sc.dcm").get("NumberOfFrames", 1) == count
    assert not (out / "picture_seg.dcm").exists()
    kept = predict_files([folder], out, make_bundle(), formats)
    assert [summary["status"] for summary in kept] == ["kept"] * 3
    with pytest.raises(UsageError, match="still picture"):
        predict_files([folder / "picture.png"], out, make_bundle(), ["dicom-seg"])


def test_measures_along_a_clip(make_bundle: MakeBundle, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (row,) = predict_files([clip], out, make_bundle(gains=(20.0, 10.0)), ["measures", "video"])
    table = pd.read_csv(out / "clip_measures.csv")
    timeline = pd.read_csv(out / "clip.csv")
    assert len(table) == 2 * row["frames"]
    nerve = table[table["label"] == "nerve"]
    np.testing.assert_array_equal(nerve["area_total_px"], timeline["area_px_nerve"])
    np.testing.assert_allclose(nerve["time"], timeline["time_s"], atol=1e-3)
    about = json.loads((out / "clip_measures.json").read_text(encoding="utf-8"))["labels"]
    assert about.keys() == {"nerve", "vessel"}
    assert about["nerve"]["area_max_px"] == timeline["area_px_nerve"].max() > 0
    assert "<svg" in (out / "clip_measures.svg").read_text(encoding="utf-8")
    (kept,) = predict_files([clip], out, make_bundle(gains=(20.0, 10.0)), ["measures", "video"])
    assert kept["status"] == "kept"
