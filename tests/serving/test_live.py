"""The live view over its WebSocket."""

from __future__ import annotations

import json
from collections.abc import Callable
from socket import create_connection
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from edgefusion.serving.limits import Limits

TOKEN = "a-token-that-is-long-enough"


def _connect(server: Any, **options: Any) -> Any:
    return connect(server.url.replace("http", "ws") + "/v1/live", proxy=None, **options)


def _number(number: int) -> bytes:
    return number.to_bytes(4, "big")


def test_frames_come_back_as_contours(server: Any, spot: Any, encode: Callable[..., bytes]) -> None:
    with _connect(server) as socket:
        socket.send(json.dumps({"model": "two"}))
        assert json.loads(socket.recv(5)) == {"ready": "two", "labels": ["nerve", "vessel"]}
        for number in (3, 2**32 - 1):
            socket.send(_number(number) + encode(spot, ".jpg"))
            answer = json.loads(socket.recv(5))
            assert answer["number"] == number
            assert answer["labels"][1]["contours"]
            assert 0 < answer["seconds"] < 5
        assert answer["dropped"] == 0


def test_the_newest_frame_wins(start: Callable[..., Any], spot_png: bytes) -> None:
    with start(seconds=0.3) as server, _connect(server) as socket:
        socket.send("{}")
        socket.recv(5)
        for number in range(10):
            socket.send(_number(number) + spot_png)
        answers = [json.loads(socket.recv(5))]
        while answers[-1]["number"] < 9:
            answers.append(json.loads(socket.recv(5)))
        assert len(answers) <= 3
        assert answers[-1]["dropped"] == 10 - len(answers)


def test_a_damaged_frame_does_not_end_it(server: Any, spot_png: bytes) -> None:
    with _connect(server) as socket:
        socket.send("{}")
        socket.recv(5)
        for body in (b"", b"no picture", spot_png[:300]):
            socket.send(_number(1) + body)
            assert "damaged" in json.loads(socket.recv(5))["error"]
        socket.send(_number(2) + spot_png)
        assert json.loads(socket.recv(5))["labels"][0]["found"]


@pytest.mark.parametrize("hello", ["", "[]", "null", "{", '{"model": "three"}', '{"model": 3}', "[" * 100_000])
def test_a_wrong_beginning_is_refused_in_words(server: Any, hello: str) -> None:
    with _connect(server) as socket:
        socket.send(hello)
        assert len(json.loads(socket.recv(5))["error"]) > 20
        with pytest.raises(ConnectionClosed):
            socket.recv(5)


def test_what_is_no_frame_ends_it(start: Callable[..., Any]) -> None:
    with start(Limits(live_bytes=1000)) as server:
        for message, word in (("text", "binary"), (bytes(2000), "too large")):
            with _connect(server) as socket:
                socket.send("{}")
                socket.recv(5)
                socket.send(message)
                assert word in json.loads(socket.recv(5))["error"]


def test_only_so_many_at_a_time(start: Callable[..., Any]) -> None:
    with start(Limits(live=1)) as server, _connect(server) as first:
        first.send("{}")
        first.recv(5)
        with _connect(server) as second:
            assert "Too many" in json.loads(second.recv(5))["error"]


@pytest.mark.parametrize(("name", "status"), [("", b"101"), ("evil.example", b"403")])
def test_a_name_that_was_pointed_here_is_not_answered(server: Any, name: str, status: bytes) -> None:
    address = httpx.URL(server.url)
    own = f"{address.host}:{address.port}"
    handshake = [
        *("GET /v1/live HTTP/1.1", f"Host: {name or own}", f"Origin: http://{name or own}", "Connection: Upgrade"),
        *("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "", ""),
    ]
    with create_connection((address.host, address.port), timeout=10) as connection:
        connection.sendall("\r\n".join(handshake).encode())
        assert connection.recv(12) == b"HTTP/1.1 " + status


def test_its_token_and_its_origin(start: Callable[..., Any]) -> None:
    with start(token=TOKEN) as server:
        for token, key in (("wrong", "error"), (TOKEN, "ready")):
            with _connect(server) as socket:
                socket.send(json.dumps({"token": token}))
                assert key in json.loads(socket.recv(5))
        with pytest.raises(InvalidStatus), _connect(server, origin="http://evil.example"):
            pass
