"""The API as a program meets it: answers, refusals, and who may ask."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from edgefusion.errors import UsageError
from edgefusion.serving.app import serve
from edgefusion.serving.limits import Limits

TOKEN = "a-token-that-is-long-enough"


def _message(response: httpx.Response) -> str:
    error = response.json()["error"]
    assert error["status"] == response.status_code
    return str(error["message"])


def test_a_picture_is_answered_in_json(server: Any, spot_png: bytes) -> None:
    response = server.predict(spot_png)
    assert response.status_code == 200
    answer = response.json()
    assert answer["notice"] == "research use, not for diagnosis"
    assert answer["model"] == "one"
    (frame,) = answer["frames"]
    assert frame["size"] == {"height": 96, "width": 128}
    (label,) = frame["labels"]
    assert label["found"]
    assert label["presence"] > 0.9
    xs, ys = np.array(label["contours"][0]).T
    assert abs(xs.mean() - 64) < 3
    assert abs(ys.mean() - 48) < 3
    assert frame["summary"] == f"Nerve found, area {label['area_px']} px."


def test_a_form_and_a_raw_body_give_the_same(server: Any, spot_png: bytes) -> None:
    form = server.client.post("/v1/predict", files={"file": ("Doe^Jane.png", spot_png, "text/html")})
    assert form.json() == server.predict(spot_png).json()


def test_a_network_that_is_unsure_says_so(server: Any, empty_png: bytes) -> None:
    (frame,) = server.predict(empty_png).json()["frames"]
    (label,) = frame["labels"]
    assert label["presence"] < 0.5
    assert not label["found"]
    assert label["contours"] == []
    assert frame["summary"] == "No nerve found with confidence."


def test_a_frame_unlike_the_training_frames_is_called_so(
    server: Any, spot_png: bytes, encode: Callable[..., bytes]
) -> None:
    noise = encode(np.random.default_rng(0).integers(0, 256, (96, 128), dtype=np.uint8))
    (known,) = server.predict(spot_png, model="two").json()["frames"]
    (strange,) = server.predict(noise, model="two").json()["frames"]
    (untold,) = server.predict(noise, model="one").json()["frames"]
    assert (known["unlike_training"], strange["unlike_training"], untold["unlike_training"]) == (False, True, None)
    assert known["drift"] < 1 < strange["drift"]
    words = "This frame is unlike what this model knows. "
    assert strange["summary"].startswith(words)
    assert words not in known["summary"] + untold["summary"]


def test_spacing_gives_square_millimetres(server: Any, spot_png: bytes) -> None:
    (label,) = server.predict(spot_png, spacing_mm=0.5).json()["frames"][0]["labels"]
    assert label["area_mm2"] == pytest.approx(label["area_px"] * 0.25)


def test_the_mask_is_a_png(server: Any, spot_png: bytes) -> None:
    response = server.predict(spot_png, "image/png")
    assert response.headers["content-type"] == "image/png"
    mask = cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_UNCHANGED)
    (label,) = server.predict(spot_png).json()["frames"][0]["labels"]
    assert mask.shape == (96, 128)
    assert np.count_nonzero(mask == 1) == label["area_px"]


def test_another_network_has_labels_of_its_own(server: Any, spot_png: bytes) -> None:
    answer = server.predict(spot_png, model="two").json()
    assert [label["name"] for label in answer["frames"][0]["labels"]] == ["nerve", "vessel"]
    names = [model["name"] for model in server.client.get("/v1/models").json()["models"]]
    assert names == ["one", "two"]


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_other_pictures(server: Any, spot: Any, encode: Callable[..., bytes], suffix: str) -> None:
    assert server.predict(encode(spot, suffix)).json()["frames"][0]["labels"][0]["found"]


def test_sixteen_bits(server: Any, spot: Any, encode: Callable[..., bytes]) -> None:
    assert server.predict(encode(spot.astype(np.uint16) * 257)).json()["frames"][0]["labels"][0]["found"]


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (406, {"accept": "text/html"}, "application/json"),
        (406, {"accept": "application/dicom"}, "DICOM"),
        (415, {"content-type": "application/json"}, "content type"),
    ],
)
def test_refusals_of_a_good_picture(
    server: Any, spot_png: bytes, status: int, headers: dict[str, str], words: str
) -> None:
    headers = {"content-type": "image/png"} | headers
    response = server.client.post("/v1/predict", content=spot_png, headers=headers)
    assert response.status_code == status
    assert words in _message(response)


def test_refused_parameters(server: Any, spot_png: bytes) -> None:
    assert "Choose one of: one, two" in _message(server.predict(spot_png, model="three"))
    for wrong in ("0", "-1", "nan", "inf", "11", "wide"):
        assert server.predict(spot_png, spacing_mm=wrong).status_code == 422


def test_limits_have_codes_and_words(start: Callable[..., Any], spot_png: bytes) -> None:
    with start(Limits(upload_bytes=1000, pixels=4096)) as server:
        big = server.predict(np.random.default_rng(0).bytes(200_000))
        assert (big.status_code, "MiB allowed" in _message(big)) == (413, True)
        lying = server.client.post(
            "/v1/predict", content=iter([b"\x89PNG", bytes(200_000)]), headers={"content-type": "image/png"}
        )
        assert lying.status_code == 413
    with start(Limits(pixels=4096)) as server:
        wide = server.predict(spot_png)
        assert (wide.status_code, "128×96 pixels" in _message(wide)) == (413, True)
    with start(Limits(seconds=0.0)) as server:
        slow = server.predict(spot_png)
        assert (slow.status_code, "Retry-After" in slow.headers) == (503, True)


def test_beyond_the_queue_comes_503(start: Callable[..., Any], spot_png: bytes) -> None:
    with start(Limits(waiting=1), seconds=0.3) as server, ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: server.predict(spot_png), range(6)))
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses[0] == 200
        assert statuses[-1] == 503
        refused = next(answer for answer in answers if answer.status_code == 503)
        assert int(refused.headers["retry-after"]) >= 1
        assert "Try again" in _message(refused)
        assert server.predict(spot_png).status_code == 200


def _empties(folder: Path) -> bool:
    """Whether all files go: deleting waits for its turn, too."""
    for _ in range(100):
        if not [path for path in folder.rglob("*") if path.is_file()]:
            return True
        time.sleep(0.05)
    return False


def test_uploads_leave_nothing_behind(start: Callable[..., Any], spot_png: bytes, tmp_path: Path) -> None:
    with start(uploads=tmp_path) as server:
        for body in (spot_png, spot_png[:200], b"nothing of use", b""):
            server.predict(body)
        assert _empties(tmp_path)
        (folder,) = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        about = server.client.post("/v1/sessions", files={"file": ("Doe^Jane.png", spot_png)}).json()
        (kept,) = folder.iterdir()
        assert re.fullmatch(r"[0-9a-f]{32}\.png", kept.name)
        server.client.delete(f"/v1/sessions/{about['id']}")
        assert _empties(tmp_path)
        server.client.post("/v1/sessions", files={"file": spot_png})
    assert not list(tmp_path.iterdir()), "the end of the server is the end of its uploads"


def test_a_token_is_needed_where_one_is_set(start: Callable[..., Any], spot_png: bytes) -> None:
    with start(token=TOKEN, local=False) as server:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}, {"authorization": "Bearer é"}):
            raw = {name: value.encode() for name, value in headers.items()}
            for path in ("/v1/models", "/metrics", "/openapi.json"):
                response = server.client.get(path, headers=raw)
                assert response.status_code == 401
                assert response.headers["www-authenticate"] == "Bearer"
        assert server.client.get("/").status_code == 200
        assert server.client.get("/static/app.js").status_code == 200
        server.client.headers["authorization"] = f"Bearer {TOKEN}"
        assert server.predict(spot_png).status_code == 200


def test_other_hosts_need_a_token() -> None:
    with pytest.raises(UsageError, match="--token"):
        serve([], host="0.0.0.0")
    with pytest.raises(UsageError, match="at least"):
        serve([], host="0.0.0.0", token="short")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[::1", "localhost."]
)
def test_other_names_are_not_answered(server: Any, host: str) -> None:
    assert server.client.get("/v1/models", headers={"host": host}).status_code in (400, 421)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://[", "http://127.0.0.1:1"])
def test_pages_of_other_sites_may_not_ask(server: Any, spot_png: bytes, origin: str) -> None:
    headers = {"origin": origin, "content-type": "application/octet-stream"}
    assert server.client.post("/v1/predict", content=spot_png, headers=headers).status_code == 403
    assert server.client.get("/v1/models", headers={"origin": server.url}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/v1/models", "/nothing"])
def test_every_answer_has_the_security_headers(server: Any, path: str) -> None:
    headers = server.client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "unsafe" not in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_metrics_count(server: Any, spot_png: bytes) -> None:
    server.predict(spot_png)
    text = server.client.get("/metrics").text
    assert 'edgefusion_requests_total{method="POST",route="/v1/predict",status="200"}' in text
    assert 'edgefusion_frames_total{model="one"}' in text


def test_the_page_loads_nothing_from_elsewhere(server: Any) -> None:
    for path in ("/", "/static/app.js", "/static/style.css", "/static/view.js"):
        text = server.client.get(path).text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text
        assert "https://" not in text


def test_a_session_from_opening_to_its_end(server: Any, spot: Any, spot_png: bytes) -> None:
    about = server.client.post("/v1/sessions", files={"file": spot_png}).json()
    assert about["kind"] == "picture"
    path = f"/v1/sessions/{about['id']}"
    head, frame, end = map(json.loads, server.client.get(f"{path}/results").text.splitlines())
    assert head["thresholds"]["presence"] == 0.5
    assert frame["labels"][0]["found"]
    assert end["end"] == {"count": 1, "note": ""}
    assert server.client.get(f"{path}/frames/1/image").status_code == 404
    assert server.client.get(f"{path}/frames/0/mask", params={"label": 1}).status_code == 422
    image = server.client.get(f"{path}/frames/0/image").content
    assert np.array_equal(cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_UNCHANGED), spot)
    assert server.client.delete(path).status_code == 204
    gone = server.client.get(f"{path}/results")
    assert (gone.status_code, "Open it again" in _message(gone)) == (404, True)


def test_the_example_is_a_clip(server: Any) -> None:
    about = server.client.post("/v1/sessions/example").json()
    lines = server.client.get(f"/v1/sessions/{about['id']}/results", params={"start": 20}).text.splitlines()
    assert [json.loads(line).get("index") for line in lines] == [None, 20, 21, 22, 23, None]


def test_old_sessions_give_way(start: Callable[..., Any], spot_png: bytes) -> None:
    with start(Limits(sessions=2)) as server:
        ids = [server.client.post("/v1/sessions", files={"file": spot_png}).json()["id"] for _ in range(3)]
        statuses = [server.client.get(f"/v1/sessions/{name}/frames/0/image").status_code for name in ids]
        assert statuses == [404, 200, 200]
    with start(Limits(session_seconds=0.0)) as server:
        name = server.client.post("/v1/sessions", files={"file": spot_png}).json()["id"]
        assert server.client.get(f"/v1/sessions/{name}/frames/0/image").status_code == 404
