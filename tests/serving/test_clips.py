"""DICOM files and clips over HTTP."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest

from edgefusion.data.video_writer import VideoWriter
from edgefusion.serving.limits import Limits


@pytest.fixture(scope="module")
def cine(tmp_path_factory: pytest.TempPathFactory, write_ultrasound: Callable[..., Path], spot: Any) -> bytes:
    """Three frames, the nerve gone in the second, with a region whose pixels are 0.2 mm high and 0.1 mm wide."""
    empty = np.tile(np.linspace(20, 200, spot.shape[1]), (len(spot), 1)).astype(np.uint8)
    region = {"left": 0, "top": 0, "right": spot.shape[1] - 1, "bottom": len(spot) - 1}
    path = tmp_path_factory.mktemp("cine") / "cine.dcm"
    return write_ultrasound(path, np.stack([spot, empty, spot]), regions=[region]).read_bytes()


def test_a_cine_is_answered_frame_by_frame(server: Any, cine: bytes) -> None:
    answer = server.predict(cine).json()
    assert [frame["labels"][0]["found"] for frame in answer["frames"]] == [True, False, True]
    assert answer["spacing_mm"] == pytest.approx([0.2, 0.1])
    assert answer["rate"] == pytest.approx(25)
    label = answer["frames"][0]["labels"][0]
    assert label["area_mm2"] == pytest.approx(0.02 * label["area_px"])
    assert label["measures"]["area_total_mm2"] == pytest.approx(label["area_mm2"], abs=1e-3)
    assert answer["frames"][1]["labels"][0]["measures"] is None


def test_its_segmentation_lies_on_its_frames(server: Any, cine: bytes) -> None:
    response = server.predict(cine, "application/dicom")
    assert response.headers["content-type"] == "application/dicom"
    made = pydicom.dcmread(io.BytesIO(response.content))
    assert made.Modality == "SEG"
    assert made.NumberOfFrames == 2
    areas = [frame["labels"][0]["area_px"] for frame in server.predict(cine).json()["frames"]]
    assert made.pixel_array.sum((1, 2)).tolist() == [areas[0], areas[2]]
    source = pydicom.dcmread(io.BytesIO(cine))
    assert made.StudyInstanceUID == source.StudyInstanceUID


def test_no_answer_names_the_patient(server: Any, cine: bytes) -> None:
    about = server.client.post("/v1/sessions", files={"file": ("Doe^Jane.dcm", cine)})
    results = server.client.get(f"/v1/sessions/{about.json()['id']}/results")
    for text in (server.predict(cine).text, about.text, results.text, server.client.get("/metrics").text):
        assert not {"Doe", "MRN-00471", "19700131"} & set(text.replace('"', " ").replace("^", " ").split())


def test_a_session_of_a_cine(server: Any, cine: bytes, spot_png: bytes) -> None:
    about = server.client.post("/v1/sessions", files={"file": cine}).json()
    assert (about["kind"], about["count"]) == ("dicom", 3)
    path = f"/v1/sessions/{about['id']}"
    # A frame in the middle first: the ones before it are decoded on the way.
    assert server.client.get(f"{path}/frames/2/probability").status_code == 200
    lines = [json.loads(line) for line in server.client.get(f"{path}/results").text.splitlines()]
    assert [line.get("index") for line in lines] == [None, 0, 1, 2, None]
    made = server.client.get(f"{path}/segmentation").content
    assert made == server.predict(cine, "application/dicom").content
    picture = server.client.post("/v1/sessions", files={"file": spot_png}).json()["id"]
    assert server.client.get(f"/v1/sessions/{picture}/segmentation").status_code == 406


def test_a_dicom_file_may_begin_like_a_tiff(server: Any, cine: bytes) -> None:
    assert len(server.predict(b"II*\0" + cine[4:]).json()["frames"]) == 3


def test_a_clip_has_no_single_mask(server: Any, cine: bytes) -> None:
    response = server.predict(cine, "image/png")
    assert response.status_code == 406
    assert "application/json" in response.json()["error"]["message"]


def test_a_clip_of_too_many_frames(start: Callable[..., Any], cine: bytes) -> None:
    with start(Limits(frames=2)) as server:
        response = server.predict(cine)
        assert response.status_code == 413
        assert "3 frames" in response.json()["error"]["message"]
        about = server.client.post("/v1/sessions", files={"file": cine}).json()
        assert about["count"] == 2
        last = server.client.get(f"/v1/sessions/{about['id']}/results").text.splitlines()[-1]
        assert json.loads(last)["end"]["count"] == 2
        assert "longer" in json.loads(last)["end"]["note"]


def test_a_session_has_room_for_what_fits(start: Callable[..., Any], cine: bytes) -> None:
    with start(Limits(session_bytes=len(cine) + 1)) as server:
        about = server.client.post("/v1/sessions", files={"file": cine}).json()
        last = server.client.get(f"/v1/sessions/{about['id']}/results").text.splitlines()[-1]
        end = json.loads(last)["end"]
        assert end["count"] < 3
        assert "first" in end["note"]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Ten frames of a scanner's screen: tissue that moves, with a spot in it, and all around nothing that does."""
    noise = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("video") / "screen.mp4"
    with VideoWriter(path, rate=10) as writer:
        for _ in range(10):
            screen = np.full((160, 240), 30, np.uint8)
            screen[24:152, 40:200] = noise.integers(30, 90, (128, 160))
            writer.write(cv2.circle(screen, (120, 88), 12, 255, -1))
    return path.read_bytes()


def test_a_video_is_looked_at_where_it_moves(server: Any, video: bytes) -> None:
    answer = server.predict(video).json()
    assert len(answer["frames"]) == 10
    assert answer["rate"] == pytest.approx(10)
    assert answer["region"]["top"] == pytest.approx(24, abs=3)
    assert answer["region"]["width"] == pytest.approx(160, abs=6)
    for frame in answer["frames"]:
        assert frame["labels"][0]["found"]
        xs, ys = np.array(frame["labels"][0]["contours"][0]).T
        assert (xs.mean(), ys.mean()) == pytest.approx((120, 88), abs=4)


def test_a_video_that_was_cut_off(server: Any, video: bytes, uploads: Path) -> None:
    for length in (40, len(video) // 2):
        response = server.predict(video[:length])
        if response.status_code != 200:
            assert response.status_code == 422
            assert str(uploads) not in response.json()["error"]["message"]
    assert server.predict(video).status_code == 200


def test_a_cine_that_ends_too_early(server: Any, cine: bytes) -> None:
    response = server.predict(cine[: len(cine) - 5000])
    assert response.status_code == 422
    assert "/tmp" not in response.json()["error"]["message"]
