from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

import pytest

from edgefusion.cluster import connection
from edgefusion.cluster.connection import connected
from edgefusion.errors import UsageError


def test_two_nodes_do_work(cluster_address: str) -> None:
    import ray

    with connected(cluster_address):
        where = ray.remote(num_cpus=0)(lambda: ray.get_runtime_context().get_node_id())
        nodes = ray.get([where.options(resources={name: 0.1}).remote() for name in ("first", "second")])
        assert len(set(nodes)) == 2
        with connected("nowhere:1"):  # connected already
            assert ray.is_initialized()
        assert ray.is_initialized()
    assert not ray.is_initialized()


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r'pip install "edgefusion\[cluster\]"'), connected("local"):
        pass


@pytest.mark.parametrize("error", [RuntimeError("Version mismatch: Python 3.9"), ConnectionError("no instance found")])
def test_a_cluster_that_cannot_be_joined_is_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(**settings: object) -> None:
        raise error

    monkeypatch.setattr("ray.init", refuse)
    with pytest.raises(UsageError, match=f"'auto' cannot be joined: {error}.*RAY_AUTH_MODE"), connected("auto"):
        pass


@contextmanager
def _server(answer: bytes | None) -> Iterator[str]:
    """Somebody else's server: it answers every connection with ``answer``, or never."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        if answer is not None:

            def serve() -> None:
                with suppress(OSError):  # nobody called, and the server has gone
                    caller, _ = server.accept()
                    caller.recv(1024)  # closing with something unread would be a reset
                    caller.sendall(answer)
                    caller.close()

            Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_an_address_that_does_not_answer_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_PATIENCE_S", 0.3)
    # Ray would try for minutes.
    monkeypatch.setattr("ray.init", lambda **settings: pytest.fail("Ray was asked"))
    started = time.monotonic()
    web_answer = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    # Bound but not listening: nobody answers there, and nobody else can come to listen there meanwhile.
    with socket.socket() as mute, _server(None) as silent, _server(web_answer) as web, _server(b"") as closing:
        mute.bind(("127.0.0.1", 0))
        gone = f"127.0.0.1:{mute.getsockname()[1]}"
        for address, message in {
            gone: "No Ray cluster answers",
            silent: "No Ray cluster answers",
            web: "is not a Ray cluster",
            closing: "is not a Ray cluster",
            "ray://127.0.0.1:10001": "is not the address",
            "somewhere": "is not the address",
        }.items():
            with pytest.raises(UsageError, match=message), connected(address):
                pass
    assert time.monotonic() - started < 10


def test_ray_is_asked_after_a_greeting_that_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is one that speaks HTTP/2 as Ray's does, and says nothing before it is greeted."""
    asked: list[str] = []
    monkeypatch.setattr(connection, "_PATIENCE_S", 5)
    monkeypatch.setattr("ray.init", lambda address, **settings: asked.append(address))
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            caller, _ = server.accept()
            with caller:
                caller.settimeout(5)
                with suppress(TimeoutError):
                    if caller.recv(24, socket.MSG_WAITALL) == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":
                        caller.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))

        Thread(target=serve, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with connected(address):
            assert asked == [address]
