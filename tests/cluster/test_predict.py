"""``predict --ray`` on a cluster of two nodes on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("ray", reason='needs Ray: pip install "edgefusion[cluster]"')

from edgefusion.cli import main
from edgefusion.cluster import part_worker
from edgefusion.cluster import predict as module
from edgefusion.cluster.connection import connected
from edgefusion.cluster.predict import predict_on_cluster
from edgefusion.errors import DataError, UsageError
from edgefusion.inference.predict import predict_files
from edgefusion.inference.predictor import load_bundle

PER_PART = 4


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline, "this did not happen within 200 s"
        time.sleep(0.02)


def workers(address: str) -> list[int]:
    """Processes with a network on this cluster, and on no other that runs beside it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"PartWorker" in (process / "cmdline").read_bytes():
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                if address.encode() in Path("/proc", parent, "cmdline").read_bytes():
                    found.append(int(process.name))
        except OSError:  # it ended in this moment
            continue
    return found


@pytest.mark.timeout(300)
def test_killed_driver_and_killed_worker_leave_every_frame_once(
    cluster_address: str, model: Path, source: Path, tmp_path: Path
) -> None:
    """One input is a pipe in which a worker waits, so that both kills happen in the middle, on any machine."""
    frames = sorted(source.iterdir())
    pipe = tmp_path / "frames" / "pipe.png"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(map(str, [*frames[:9], pipe, *frames[9:]])) + "\n")
    out = tmp_path / "out"

    def parts() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}

    call = ([listed], out, model, cluster_address)
    command = (
        f"predict_on_cluster([{str(listed)!r}], {str(out)!r}, {str(model)!r}, {cluster_address!r}, per_part={PER_PART})"
    )
    module = "from edgefusion.cluster.predict import predict_on_cluster"
    driver = subprocess.Popen([sys.executable, "-c", f"{module}; {command}"])
    wait_for(lambda: len(parts()) >= 2)
    driver.kill()
    driver.wait()
    wait_for(lambda: not workers(cluster_address))
    before = parts()
    assert 2 <= len(before) < 11

    killed: list[int] = []

    def kill_the_waiting_worker() -> None:
        wait_for(lambda: len(parts()) > len(before))
        pipe.unlink()
        pipe.write_bytes(frames[3].read_bytes())
        for worker in workers(cluster_address):
            os.kill(worker, signal.SIGKILL)
            killed.append(worker)

    killer = threading.Thread(target=kill_the_waiting_worker)
    killer.start()
    with connected(cluster_address):
        summary = predict_on_cluster(*call, per_part=PER_PART)
        killer.join()
        again = predict_on_cluster(*call, per_part=PER_PART)
        with pytest.raises(DataError, match="1 of 41 frames could not be used"):
            predict_on_cluster(*call, per_part=PER_PART, strict=True)
    assert killed
    assert summary == {"frames": 41, "done": 40, "failed": 1, "parts": 11, "kept": len(before)}
    assert {name: parts()[name] for name in before} == before

    table = pd.read_parquet(sorted(out.glob("part-*.parquet")))
    assert table["input"].tolist() == listed.read_text().split()
    predict_files([listed], tmp_path / "plain", load_bundle(model), ["png"])
    masks = {path.name: path.read_bytes() for path in (tmp_path / "plain").glob("*_mask.png")}
    assert {path.name: path.read_bytes() for path in (out / "frames").rglob("*.png")} == masks
    assert not [path for path in out.rglob(".*") if path.is_file()]

    assert again == {**summary, "kept": 11}


def test_by_the_command_line(
    cluster_address: str, model: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = [
        "predict",
        str(source / "f01.png"),
        "-o",
        str(tmp_path / "out"),
        "--model",
        str(model),
        "--ray",
        cluster_address,
    ]
    assert main([*call, "--format", "none", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"frames": 1, "done": 1, "failed": 0, "parts": 1, "kept": 0}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "part-000000.parquet", "inputs.parquet", "run.json", "model",
    }  # fmt: skip


def test_an_output_that_cannot_be_written_ends_the_run_with_one_line(
    cluster_address: str, model: Path, source: Path, tmp_path: Path
) -> None:
    """What is wrong with the output is not written down as a fault of the frames."""
    out = tmp_path / "out"
    (out / "frames" / "000000").parent.mkdir(parents=True)
    (out / "frames" / "000000").write_text("in the way")
    with pytest.raises(DataError, match=r"^Part 0 could not be done: .*000000") as error:
        predict_on_cluster([source / "f01.png"], out, model, cluster_address)
    assert "\n" not in str(error.value)
    assert not list(out.glob("part-*"))


def test_a_part_that_kills_every_worker_ends_the_run(
    cluster_address: str, model: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths = tmp_path / "deaths"

    class Dies:
        """Instead of a worker, without a network, so that it dies fast."""

        def __init__(self, *_: object) -> None:
            pass

        def __call__(self, batch: dict[str, object]) -> dict[str, object]:
            with deaths.open("a") as file:
                file.write("x")
            os._exit(1)

    monkeypatch.setattr(part_worker, "PartWorker", Dies)
    assert module._RETRIES == 5
    monkeypatch.setattr(module, "_RETRIES", 1)
    with pytest.raises(DataError, match="A worker died 2 times at the same part"):
        predict_on_cluster([source / "f01.png"], tmp_path / "out", model, cluster_address)
    assert deaths.read_text() == "xx"


def test_no_cluster_no_ray_no_format(
    model: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="no format 'video'"):
        predict_on_cluster([source], tmp_path / "out", model, "auto", ["video"])
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="which is not installed"):
        predict_on_cluster([source], tmp_path / "out", model, "auto")
