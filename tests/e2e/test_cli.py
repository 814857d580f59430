"""The program as a person meets it: help, mistakes, and the whole way on a small study."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgefusion.cli import VERBS, main

_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def _edgefusion(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgefusion", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=_ENVIRONMENT)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "study"
    assert main(["phantom", "-o", str(folder), "--patients", "4", "--frames", "3", "--size", "64x96"]) == 0
    return folder


@pytest.fixture(scope="module")
def bundle(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "bundle"
    size = ["--recipe.height", "32", "--recipe.width", "48", "--train.epochs", "1", "--train.batch_size", "4"]
    assert main(["train", str(study), "-o", str(folder), "--train.precision", "32", *size]) == 0
    return folder


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_needs_no_torch(verb: str) -> None:
    code = (
        "import sys; from edgefusion.cli import main\n"
        f"try: main(['{verb}', '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'monai', 'lightning', 'numba', 'cv2', 'pandas', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"edgefusion {verb}" in done.stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, edgefusion; assert not {'torch', 'numpy', 'cv2', 'pandas'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_torchvision_is_absent_because_it_breaks_the_cpu_build_of_torch() -> None:
    code = "import importlib.util as u, sys; sys.exit(u.find_spec('torchvision') is not None)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_verb_lists_the_verbs_and_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    said = capsys.readouterr().out
    assert all(verb in said for verb in VERBS)


def _wrong(tmp_path: Path, study: Path) -> list[tuple[list[object], int, str]]:
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    empty = tmp_path / "empty.png"
    empty.touch()
    pair = tmp_path / "pair"
    pair.mkdir(exist_ok=True)
    cv2.imwrite(str(pair / "a.png"), np.full((20, 30), 9, np.uint8))
    cv2.imwrite(str(pair / "a_mask.png"), np.zeros((20, 31), np.uint8))
    out = ["-o", tmp_path / "out"]
    return [
        (["nonsense"], 2, "nonsense"),
        (["ingest", tmp_path / "missing", *out], 2, "missing"),
        (["ingest", pair, *out], 1, "a"),
        (["channels", text, *out], 1, "text.png"),
        (["channels", empty, *out], 1, "empty.png"),
        (["channels", tmp_path / "gone.png", *out], 1, "gone.png"),
        (["train", tmp_path / "missing", *out], 2, "missing"),
        (["train", study, "--model", "edgefusion-unt", *out], 2, "edgefusion-unet"),
        (["compare", study, "--models", "unet,resnet", *out], 2, "resunet"),
        (["compare", study, "--folds", "40", *out], 2, "40"),
        (["compare", study, "--train.epochs", "many", *out], 2, "epochs"),
        (["evaluate", tmp_path, study, *out], 2, "bundle"),
        (["predict", tmp_path / "gone.png", "--model", tmp_path, *out], 2, "bundle"),
        (["predict", tmp_path / "gone.png", "--model", "regionl", *out], 2, "regionl"),
        (["phantom", "--size", "large", *out], 2, "large"),
        (["bench", "--size", "large"], 2, "large"),
        (["export", "regional"], 2, "--onnx"),
        (["serve", "--dicom"], 2, "--peer"),
        (["serve", "--dicom", "--peer", "nobody"], 2, "TITLE@HOST:PORT"),
    ]


def test_wrong_input_ends_in_one_clear_line(tmp_path: Path, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code, hint in _wrong(tmp_path, study):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        assert main([str(argument) for argument in arguments]) == code, arguments
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        assert said.out == ""
        last = said.err.strip().splitlines()[-1]
        assert last.startswith("edgefusion: ")
        assert hint in last, last


def test_a_wrong_call_as_a_process_has_the_exit_code_and_no_traceback() -> None:
    done = _edgefusion("train", "/nowhere", "-o", "/nowhere/else")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_predict_finds_its_way_from_pictures_to_files(study: Path, bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    arguments = [
        study / "images",
        broken,
        "--model",
        bundle,
        "--format",
        "png,overlay,json,kaggle",
        "-o",
        tmp_path / "o",
    ]
    done = _edgefusion("predict", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert "broken.png" in done.stderr
    assert [row["status"] for row in json.loads(done.stdout)].count("done") == 12
    assert (tmp_path / "o" / "predict-report.csv").is_file()


def test_evaluate_answers_in_words_and_in_json(
    study: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(bundle), str(study), "-o", str(tmp_path), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["models"] == ["edgefusion-unet"]
    assert "trained on" in said.err
    assert main(["evaluate", str(bundle), str(study), "-o", str(tmp_path)]) == 0
    assert "Dice" in capsys.readouterr().out


def test_channels_writes_one_picture_of_all(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = next((study / "images").glob("*.png"))
    assert main(["channels", str(image), "-o", str(tmp_path), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"srad", "dpad"}
    picture = cv2.imread(str(tmp_path / "channels.png"), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    assert picture.shape[1] == 4 * 96


def test_info_knows_every_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["models"]["edgefusion-unet"]["multiply_adds"] <= 0.7e9


def test_bench_times_every_backend_beside_its_peers_in_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--frames", "1", "--size", "96x128", "--json"]) == 0
    contenders = json.loads(capsys.readouterr().out)["contenders"]
    assert contenders["U-Net, matched, PyTorch"]["times_unet"] == 1
    for title in ("EdgeFusion, PyTorch", "EdgeFusion, ONNX Runtime", "U-Net, ONNX Runtime"):
        stages = contenders[title]["stages"]
        assert stages.keys() == {"resize, channels", "network", "resize back, mask, outlines", "overlay", "whole way"}
        assert all(0 < values["median_ms"] <= values["p95_ms"] for values in stages.values())
        assert 50 < contenders[title]["peak_mb"] < 4000


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ on Windows")
def test_interrupting_a_training_is_quick_and_it_can_go_on(study: Path, tmp_path: Path) -> None:
    arguments = ["train", str(study), "-o", str(tmp_path / "b"), "--train.epochs", "500", "--train.precision", "32"]
    command = [sys.executable, "-m", "edgefusion", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=_ENVIRONMENT)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "epoch 2/" in line:
                break
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        _, rest = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert time.monotonic() - started < 20
    assert "Traceback" not in rest
    assert (tmp_path / "b" / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.parametrize("line", ["seeds: 7", "seeds: [0, 1]", "without_patients: 3", "validation_patients: [3, 8]"])
def test_a_settings_file_may_give_numbers_and_lists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    (tmp_path / "run.yaml").write_text(line + "\n")
    arguments = [
        "compare",
        str(tmp_path / "nowhere"),
        "-o",
        str(tmp_path / "run"),
        "--config",
        str(tmp_path / "run.yaml"),
    ]
    assert main(arguments) == 2
    assert "nowhere" in capsys.readouterr().err
