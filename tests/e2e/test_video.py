"""Half a minute of video from file to overlay: every frame, in time, and no more memory than for a short clip."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from edgefusion.bundle import Bundle
from edgefusion.cli import main
from edgefusion.config import ChannelRecipe
from edgefusion.data.phantom.cine import simulate_clip
from edgefusion.data.video import open_video
from edgefusion.data.video_writer import VideoWriter
from edgefusion.inference.predictor import Predictor
from edgefusion.models.zoo import build_model

RATE, SECONDS = 30, 30
_SIZE = (168, 232)
"""Rows and columns: two fifths of a scanner's, so that a slow machine is not busy for minutes."""
_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network that is not trained but real; what it finds is arbitrary, and always the same."""
    folder = tmp_path_factory.mktemp("bundle")
    torch.manual_seed(0)
    found = Bundle(build_model("unet", 1, 1), "unet", ChannelRecipe(("raw",), 32, 48), ["nerve"])
    probability = Predictor(found).predict(next(simulate_clip(0, 1, _SIZE))).probability
    found.thresholds.update(mask=round(float(np.quantile(probability, 0.8)), 4), presence=0.0)
    found.save(folder)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    paths = {"short": folder / "short.mp4", "long": folder / "long.mp4"}
    with VideoWriter(paths["short"], RATE) as short, VideoWriter(paths["long"], RATE) as long:
        for number, frame in enumerate(simulate_clip(0, RATE * SECONDS, _SIZE)):
            long.write(frame)
            if number < RATE * SECONDS // 4:
                short.write(frame)
    return paths


def predicted(clip: Path, bundle: Path, output: Path) -> float:
    """Predict in a process of its own; returns by how many MB its peak memory exceeds that before the clip."""
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from edgefusion.bundle import Bundle; from edgefusion.data.video import open_video\n"
        "from edgefusion.inference.predict import predict_files; from edgefusion.inference.predictor import Predictor\n"
        "clip, folder, output = map(Path, sys.argv[1:])\n"
        "bundle = Bundle.load(folder)\n"
        "Predictor(bundle).predict(next(open_video(clip).read()))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "predict_files([clip], output, bundle, ['video', 'json'])\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)"
    )
    command = [sys.executable, "-c", code, str(clip), str(bundle), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform == "win32", reason="there is no resource module on Windows")
def test_half_a_minute_is_overlaid_with_the_memory_of_a_quarter_of_it(
    clips: dict[str, Path], bundle: Path, tmp_path: Path
) -> None:
    growth = {name: predicted(clip, bundle, tmp_path / name) for name, clip in clips.items()}
    # The frames that one clip has more are 26 MB, their predictions 210 MB.
    assert growth["long"] - growth["short"] < 15
    frames = RATE * SECONDS
    table = pd.read_csv(tmp_path / "long" / "long.csv")
    assert list(table["frame"]) == list(range(frames))
    np.testing.assert_allclose(table["time_s"], np.arange(frames) / RATE, atol=1e-3)
    overlay = open_video(tmp_path / "long" / "long_overlay.mp4")
    assert (overlay.count, overlay.rate) == (frames, RATE)
    predictor = Predictor(Bundle.load(bundle))
    pairs = zip(open_video(clips["long"]).read(), overlay.read(), strict=True)
    for number, (frame, shown) in enumerate(pairs):
        if number % 100 == 50:
            prediction = predictor.predict(frame)
            assert table["area_px_nerve"][number] == pytest.approx(prediction.area_px[0], rel=1e-3, abs=3)
            outlines = cv2.polylines(np.zeros_like(frame), [c.astype(int) for c in prediction.contours[0]], True, 1)
            near = cv2.dilate(outlines, np.ones((5, 5))) > 0
            change = np.abs(shown.astype(int) - frame)
            # Two codings of the same speckle, and where the outline is something else.
            assert change[~near].mean() < 6 < change[outlines > 0].mean()
    assert table["area_px_nerve"].nunique() > 100


def test_the_command_line_takes_a_clip_with_all_its_options(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = tmp_path / "x.mp4"
    with VideoWriter(short, RATE) as writer:
        for frame in simulate_clip(1, 8, (96, 128)):
            writer.write(frame)
    arguments = ["predict", str(short), "-o", str(tmp_path / "o"), "--model", str(bundle), "--format", "video,json"]
    options = ["--smoothing", "0.5", "--crop", "0,0,80,128", "--json"]
    assert main([*arguments, *options]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["status"], row["frames"]) == ("done", 8)
    about = json.loads((tmp_path / "o" / "x.json").read_text())
    assert about["region"] == {"top": 0, "left": 0, "height": 80, "width": 128}
    assert about["smoothing"] == 0.5
    assert main([*arguments, "--crop", "most"]) == 2
    assert main([*arguments, "--smoothing", "2"]) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ on Windows")
def test_interrupting_a_clip_is_quick_and_keeps_nothing_half_written(bundle: Path, tmp_path: Path) -> None:
    clips = {"short": tmp_path / "short.mp4", "long": tmp_path / "long.mp4"}
    frames = list(simulate_clip(0, 5, (96, 128)))
    for path, times in zip(clips.values(), (1, 600), strict=True):
        with VideoWriter(path, RATE) as writer:
            for frame in frames * times:
                writer.write(frame)
    options = ["-o", str(tmp_path / "o"), "--model", str(bundle), "--format", "video,png,json", "--crop", "none"]
    command = [sys.executable, "-m", "edgefusion", "predict", str(clips["short"]), str(clips["long"]), *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=_ENVIRONMENT)
    try:
        deadline = time.monotonic() + 90
        while not any((tmp_path / "o").glob(".edgefusion-*/000020.png")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert time.monotonic() - started < 20
    assert "Traceback" not in said
    assert "What was finished is kept" in said
    assert {path.name for path in (tmp_path / "o").iterdir()} == {
        *("short_overlay.mp4", "short.csv", "short_mask", "short.json", "predict-report.csv")
    }
