"""Studies on object storage, against a real S3 server on the loopback."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import boto3
import cv2
import fsspec
import numpy as np
import pandas as pd
import pytest
import torch
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from edgefusion import remote
from edgefusion.bundle import Bundle
from edgefusion.cli import main
from edgefusion.config import ChannelRecipe
from edgefusion.data.study import Study, frames_table, store_frame
from edgefusion.errors import DataError, UsageError
from edgefusion.inference.predict import predict_files
from edgefusion.inference.predictor import load_bundle
from edgefusion.models.zoo import build_model
from edgefusion.remote import RemotePath, UnreachableError, fetched, place

BUCKET = "s3://studies"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def storage(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The server's address; credentials and the cache are those of this test."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("EDGEFUSION_CACHE", str(tmp_path / "cache"))
    S3FileSystem.clear_instance_cache()
    yield server
    S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("local") / "study"
    rng = np.random.default_rng(0)
    rows = []
    for n in range(6):
        image = np.clip(120 + 500 * cv2.GaussianBlur(rng.standard_normal((60, 70 + n)), (0, 0), 4), 0, 255)
        mask = np.zeros(image.shape, np.uint8)
        cv2.circle(mask, (30 + n, 30), 9, 1, -1)
        rows.append(store_frame(folder, f"f{n}", f"p{n % 3}", image.astype(np.uint8), mask, spacing=(0.1, 0.2)))
    study = Study(folder, "small", ["nerve"], "", "", frames_table(rows))
    study.save()
    return study


@pytest.fixture(scope="module")
def uploaded(server: str, study: Study) -> str:
    client = boto3.client(
        "s3", endpoint_url=server, region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret"
    )
    client.create_bucket(Bucket="studies")
    for path in Path(study.path).rglob("*"):  # type: ignore[arg-type]
        if path.is_file():
            client.upload_file(str(path), "studies", f"nerve/{path.relative_to(study.path).as_posix()}")  # type: ignore[arg-type]
    client.put_object(Bucket="studies", Key="nerve/images/half.png", Body=b"\x89PNG\r\n\x1a\n")
    return f"{BUCKET}/nerve"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    arguments = {"widths": [8, 8, 8, 8], "stem_widths": [4, 4, 4]}
    recipe = ChannelRecipe(channels=("raw", "edges"), height=48, width=64, resolution="network")
    network = build_model("edgefusion-unet", 2, 1, **arguments).eval()
    bundle = Bundle(network, "edgefusion-unet", recipe, ["nerve"], arguments, {"mask": 0.45, "presence": 0.0})
    folder = tmp_path_factory.mktemp("model") / "bundle"
    bundle.save(folder)
    return folder


def test_a_study_is_the_same_on_object_storage(storage: str, study: Study, uploaded: str) -> None:
    there = Study.load(uploaded)
    assert there.sha256() == study.sha256()
    for frame in study.frames["frame_id"]:
        np.testing.assert_array_equal(there.image(frame), study.image(frame))
        np.testing.assert_array_equal(there.mask(frame), study.mask(frame))
    with pytest.raises(UsageError, match="read only"):
        there.save()


def test_evaluate_gives_the_same_numbers_and_keeps_channels_here(
    storage: str, study: Study, uploaded: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["evaluate", str(model), str(study.path), "-o", str(tmp_path / "a")]) == 0
    assert main(["evaluate", str(model), uploaded + "/", "-o", str(tmp_path / "b")]) == 0
    assert (tmp_path / "a" / "frames.csv").read_bytes() == (tmp_path / "b" / "frames.csv").read_bytes()
    entries = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(entries) == 6
    reads: list[str] = []
    original = RemotePath.read_bytes
    monkeypatch.setattr(RemotePath, "read_bytes", lambda self: (reads.append(self.name), original(self))[1])
    assert main(["evaluate", str(model), uploaded, "-o", str(tmp_path / "c")]) == 0
    # Channels came from the cache: only masks were read again.
    assert sorted(reads) == sorted(["study.yaml", "frames.csv", *(f"f{n}.png" for n in range(6))])


def test_train_gives_the_same_weights(storage: str, study: Study, uploaded: str, tmp_path: Path) -> None:
    how = "--model unet --train.epochs 2 --train.batch_size 4 --train.precision 32 --recipe.height 32 --recipe.width 32"
    for name, place_of_study in (("here", str(study.path)), ("there", uploaded)):
        assert main(["train", place_of_study, "-o", str(tmp_path / name), *how.split()]) == 0
    here, there = (tmp_path / name / "model.safetensors" for name in ("here", "there"))
    assert there.read_bytes() == here.read_bytes()
    assert len([path for path in (tmp_path / "cache").rglob("*") if path.is_file()]) == 6


def test_predict_gives_the_same_masks_from_a_study_and_from_a_list(
    storage: str, study: Study, uploaded: str, model: Path, tmp_path: Path
) -> None:
    bundle = load_bundle(model)
    plain = predict_files([study.path], tmp_path / "plain", bundle, ["png"])  # type: ignore[list-item]
    other = predict_files([uploaded], tmp_path / "remote", bundle, ["png"])
    listed = tmp_path / "list.txt"
    listed.write_text(f"{uploaded}/images/f0.png\n{uploaded}/images/half.png\n{uploaded}/images/gone.png\n")
    some = predict_files([listed], tmp_path / "some", bundle, ["png"])
    masks = {path.name: path.read_bytes() for path in (tmp_path / "plain").glob("*.png")}
    assert {path.name: path.read_bytes() for path in (tmp_path / "remote").glob("*.png")} == masks
    assert (tmp_path / "some" / "f0_mask.png").read_bytes() == masks["f0_mask.png"]
    for here, there in zip(plain, other, strict=True):
        assert there["input"] == f"{uploaded}/images/{there['name']}.png"
        assert {**here, "input": ""} == {**there, "input": ""}
    assert [row["status"] for row in some] == ["done", "failed", "failed"]
    assert "is not a PNG" in some[1]["reason"]
    assert some[2]["reason"].startswith(f"There is no object {uploaded}/images/gone.png.")
    assert [row["status"] for row in predict_files([uploaded], tmp_path / "remote", bundle, ["png"])] == ["kept"] * 6


def test_parts_are_done_from_object_storage(storage: str, uploaded: str, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from edgefusion.cluster.part_files import begin
    from edgefusion.cluster.part_worker import PartWorker
    from edgefusion.inference.inputs import FrameFile, find_frames

    frames = [*find_frames([uploaded], tmp_path), FrameFile(RemotePath(f"{uploaded}/images/gone.png"), None)]
    plan = begin(tmp_path / "out", frames, {str(f.path): f.path.stem for f in frames}, "x", ())
    worker = PartWorker(plan, model, False, "auto")
    worker({"item": np.array([0])})
    table = pd.read_parquet(plan.path(0))
    assert table["status"].tolist() == ["done"] * 6 + ["failed"]
    assert table["area_mm2_nerve"].notna().sum() == 6
    plan.path(0).unlink()


@pytest.fixture
def away(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is gone."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(remote, "_ATTEMPTS", 1)
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    S3FileSystem.clear_instance_cache()


def test_an_outage_is_not_written_down_as_bad_frames(
    storage: str, uploaded: str, model: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Neither by predict nor by a worker: the frames are left for the next call."""
    pytest.importorskip("pyarrow")
    from edgefusion.cluster.part_files import begin
    from edgefusion.cluster.part_worker import PartWorker
    from edgefusion.inference.inputs import find_frames

    frames = find_frames([uploaded], tmp_path)
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(str(frame.path) for frame in frames))
    request.getfixturevalue("away")
    with pytest.raises(UnreachableError, match="cannot be reached"):
        predict_files([listed], tmp_path / "plain", load_bundle(model), ["png"])
    assert not (tmp_path / "plain" / "predict-report.csv").exists()
    plan = begin(tmp_path / "out", frames, {str(f.path): f.path.stem for f in frames}, "x", ())
    answer = PartWorker(plan, model, False, "auto")({"item": np.array([0])})
    assert "cannot be reached" in answer["error"][0]
    assert plan.pending() == [0]


def test_every_failure_is_one_line(
    storage: str, uploaded: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    def line(url: str, error: type[Exception]) -> str:
        with pytest.raises(error) as caught:
            Study.load(url)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "is not a study" in line(f"{BUCKET}/other", UsageError)
    assert "no kind of storage 'ftpp'" in line("ftpp://host/study", UsageError)
    with pytest.raises(DataError, match="There is no object"):
        RemotePath(f"{uploaded}/gone").read_bytes()
    with pytest.raises(UnreachableError, match="There is no bucket"):
        RemotePath("s3://no-such-bucket/study.yaml").read_bytes()
    request.getfixturevalue("away")
    assert "cannot be reached" in line(uploaded, UnreachableError)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    S3FileSystem.clear_instance_cache()
    assert "There are no credentials" in line(uploaded, UnreachableError)


def test_other_storage_and_addresses_of_folders(study: Study, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for name in ("study.yaml", "frames.csv", "images/f0.png"):
        memory.pipe(f"/held/{name}", (Path(study.path) / name).read_bytes())  # type: ignore[arg-type]
    held_study = Study.load("memory://held")
    np.testing.assert_array_equal(held_study.image("f0"), study.image("f0"))
    with pytest.raises(DataError, match="There is no object memory://held/images/f1"):
        held_study.image("f1")
    shutil.copytree(str(study.path), tmp_path / "a study")
    assert Study.load(f"file://{tmp_path}/a%20study").path == tmp_path / "a study"
    assert fetched(tmp_path) == tmp_path == place(tmp_path)
    held = fetched(place("memory://held/images/f0.png"))
    memory.rm("/held", recursive=True)
    assert held.read_bytes() == (Path(study.path) / "images" / "f0.png").read_bytes()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("failure", "error", "line"),
    [
        (PermissionError("Access\nDenied."), UnreachableError, "memory://a/b may not be read: Access Denied. Check"),
        (OSError("Slow\n down"), UnreachableError, "memory://a/b cannot be reached: Slow down. Try"),
        (TimeoutError(), UnreachableError, "memory://a/b cannot be reached: TimeoutError. Try"),
        (ImportError("install x"), UsageError, "memory:// needs a package that is not installed (install x). Install"),
    ],
)
def test_what_storage_answers_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, error: type[Exception], line: str
) -> None:
    def fail(*_: object) -> bytes:
        raise failure

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "cat_file", fail)
    with pytest.raises(error) as caught:
        RemotePath("memory://a/b").read_bytes()
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_away_is_given_up_soon_unless_settings_say_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, object]] = []

    def away(url: str, **options: object) -> None:
        given.append(options)
        raise TimeoutError

    monkeypatch.setattr(fsspec.core, "url_to_fs", away)
    for settings in ({}, {"s3": {"config_kwargs": {}}}):
        monkeypatch.setattr(fsspec.config, "conf", settings)
        with pytest.raises(UnreachableError):
            RemotePath("s3://a/b").read_bytes()
    retries = {"max_attempts": 3, "mode": "standard"}
    assert given == [{"config_kwargs": {"connect_timeout": 5, "read_timeout": 60, "retries": retries}}, {}]
