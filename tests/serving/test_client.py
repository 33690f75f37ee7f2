from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from raymill.errors import DataError, RaymillError
from raymill.serving import client

Reply = tuple[int, dict[str, str], dict[str, Any]]
Serve = Callable[[Callable[[list[dict[str, Any]], int], Reply]], str]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """A server on loopback that answers each request by a function of (rows, how many before)."""
    monkeypatch.setattr(client, "_FIRST_WAIT_S", 0.001)
    servers: list[ThreadingHTTPServer] = []

    def start(reply: Callable[[list[dict[str, Any]], int], Reply]) -> str:
        calls: list[int] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                calls.append(1)
                status, headers, document = reply(body["rows"], len(calls) - 1)
                data = json.dumps(document).encode()
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def doubled(rows: list[dict[str, Any]], before: int) -> Reply:
    return 200, {}, {"predictions": [{"prediction": 2 * row["x"]} for row in rows]}


def test_many_rows_go_in_parts_and_come_back_in_order(serve: Serve) -> None:
    sizes: list[int] = []

    def reply(rows: list[dict[str, Any]], before: int) -> Reply:
        sizes.append(len(rows))
        return doubled(rows, before)

    answers = client.predict(serve(reply), ({"x": i} for i in range(25)), part=10)
    assert [answer["prediction"] for answer in answers] == [2 * i for i in range(25)]
    assert sizes == [10, 10, 5]


def test_parts_are_cut_by_bytes_too(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PART_BYTES", 100)
    sizes: list[int] = []

    def reply(rows: list[dict[str, Any]], before: int) -> Reply:
        sizes.append(len(rows))
        return doubled(rows, before)

    rows = [{"x": i, "image": "a" * (20 if i < 6 else 200)} for i in range(8)]
    answers = client.predict(serve(reply), rows)
    assert [answer["prediction"] for answer in answers] == [2 * i for i in range(8)]
    assert sizes == [2, 2, 2, 1, 1]


@pytest.mark.parametrize("status", [413, 422])
def test_parts_that_are_too_large_are_halved_once(serve: Serve, status: int) -> None:
    sizes: list[int] = []

    def reply(rows: list[dict[str, Any]], before: int) -> Reply:
        sizes.append(len(rows))
        detail = f"A request has 1 to 3 rows, but this one has {len(rows)}."
        return doubled(rows, before) if len(rows) <= 3 else (status, {}, {"detail": detail})

    answers = client.predict(serve(reply), [{"x": i} for i in range(15)], part=8)
    assert [answer["prediction"] for answer in answers] == [2 * i for i in range(15)]
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 2, 2, 1]


def test_no_rows_ask_nothing(serve: Serve) -> None:
    assert client.predict("http://127.0.0.1:9", []) == []


@pytest.mark.parametrize("status", [429, 502, 503])
def test_an_endpoint_that_is_busy_is_asked_again(serve: Serve, status: int) -> None:
    def reply(rows: list[dict[str, Any]], before: int) -> Reply:
        return doubled(rows, before) if before == 2 else (status, {"retry-after": "0"}, {})

    assert client.predict(serve(reply), [{"x": 3}]) == [{"prediction": 6}]


def test_an_endpoint_that_stays_busy_is_given_up(serve: Serve) -> None:
    url = serve(lambda rows, before: (503, {}, {}))
    with pytest.raises(RaymillError, match="did not answer in 6 tries: status 503"):
        client.predict(url, [{"x": 1}])


def test_no_endpoint_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_FIRST_WAIT_S", 0.001)
    with pytest.raises(RaymillError, match="did not answer"):
        client.predict("http://127.0.0.1:9", [{"x": 1}])


def test_a_bad_row_is_named_by_its_place_among_all_rows(serve: Serve) -> None:
    def reply(rows: list[dict[str, Any]], before: int) -> Reply:
        if before == 0:
            return doubled(rows, before)
        errors = [{"row": 1, "field": "x", "rule": "x must be a number"}]
        return 422, {}, {"detail": "bad", "errors": errors}

    with pytest.raises(DataError, match=r"rows\[11\]\.x: x must be a number"):
        client.predict(serve(reply), [{"x": i} for i in range(20)], part=10)


def test_what_else_the_endpoint_refuses_is_told_in_its_words(serve: Serve) -> None:
    url = serve(lambda rows, before: (413, {}, {"detail": "The body is too long."}))
    with pytest.raises(RaymillError, match="answered 413: The body is too long"):
        client.predict(url, [{"x": 1}])


def test_waits_grow_and_respect_what_the_endpoint_asks() -> None:
    assert client._wait_s(0, None) <= 0.2
    assert 1.0 <= client._wait_s(0, "1") <= 1.0
    assert client._wait_s(20, "100") == 5.0
