from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn

from raymill.serving.whole import answer_in_one_piece

HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]}
Raw = Callable[[str, str], socket.socket]


class Server(uvicorn.Server):
    """Answers `body` in two messages, and looks at the client between them."""

    def __init__(self) -> None:
        super().__init__(uvicorn.Config(self.app, port=0, http="httptools", interface="asgi3",
                                        lifespan="off", log_config=None))
        self.client: socket.socket | None = None
        self.early: list[Any] = []

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        await send(HEAD)
        if scope["path"] == "/dies":
            raise ConnectionAbortedError
        assert self.client is not None
        self.early += select.select([self.client], [], [], 0.05)[0]
        await send({"type": "http.response.body", "body": b"bo", "more_body": True})
        await send({"type": "http.response.body", "body": b"dy"})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle as Cycle

    monkeypatch.setattr(Cycle, "send", Cycle.send)  # put back in the end
    there = hasattr(Cycle, "raymill_head")
    answer_in_one_piece()
    answer_in_one_piece()
    server = Server()
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.01)
    with socket.create_connection(server.servers[0].sockets[0].getsockname()) as server.client:
        yield server
    server.should_exit = True
    thread.join()
    if not there:
        del Cycle.raymill_head  # type: ignore[attr-defined]


def asked(server: Server, method: str, path: str = "/", *more: str) -> bytes:
    assert server.client is not None
    server.client.sendall("\r\n".join(
        [f"{method} {path} HTTP/1.1", "host: h", *more, "", ""]).encode())
    told = b""
    while chunk := server.client.recv(4096):
        told += chunk
        if told.endswith(b"body") or (method == "HEAD" and told.endswith(b"\r\n\r\n")):
            break
    return told


def test_nothing_is_sent_before_the_body(server: Server) -> None:
    for _ in range(2):  # over one connection
        assert asked(server, "GET").startswith(b"HTTP/1.1 200") and server.early == []
    assert asked(server, "POST", "/", "content-length: 0").endswith(b"\r\n\r\nbody")


def test_an_answer_without_a_body_is_sent_too(server: Server) -> None:
    assert asked(server, "HEAD").endswith(b"\r\n\r\n")
    assert asked(server, "GET").endswith(b"body")


def test_the_connection_may_end_with_the_answer(server: Server) -> None:
    assert asked(server, "GET", "/", "connection: close").endswith(b"\r\n\r\nbody")
    assert server.client is not None and server.client.recv(1) == b""


def test_an_answer_that_was_not_finished_was_not_begun(server: Server) -> None:
    assert asked(server, "GET", "/dies") == b""
