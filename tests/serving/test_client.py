from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from raymill.errors import DataError, RaymillError
from raymill.serving import asking, client

Reply = tuple[int, dict[str, str], dict[str, Any]]
seen: list[str | None] = []  # the authorization of each request
Serve = Callable[[Callable[[list[dict[str, Any]], int], Reply]], str]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """A server on loopback that answers each request by a function of (rows, how many before)."""
    monkeypatch.setattr(asking, "FIRST_WAIT_S", 0.001)
    servers: list[ThreadingHTTPServer] = []

    def start(reply: Callable[[list[dict[str, Any]], int], Reply]) -> str:
        calls: list[int] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                arrow = self.headers["content-type"] == asking.ARROW
                rows = (pa.ipc.open_stream(body).read_all().to_pylist() if arrow
                        else json.loads(body)["rows"])
                calls.append(1)
                seen.append(self.headers["authorization"])
                status, headers, document = reply(rows, len(calls) - 1)
                data = json.dumps(document).encode()
                if arrow and status == 200:
                    data = asking._stream(pa.Table.from_pylist(document["predictions"]))
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


def test_a_client_tells_which_models_answered(serve: Serve) -> None:
    def reply(rows: list[dict[str, Any]], before: int) -> Reply:
        status, headers, document = doubled(rows, before)
        return status, headers, {**document, "model": "toy", "version": 7 - min(before, 1)}

    with client.Client(serve(reply), part=10) as asked:
        assert asked.answered_by == []
        asked.predict([{"x": i} for i in range(30)])
        assert asked.answered_by == [("toy", 6), ("toy", 7)]


def test_parts_are_cut_by_bytes_too(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PART_BYTES", 100)
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
    monkeypatch.setattr(asking, "FIRST_WAIT_S", 0.001)
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
    assert asking.wait_s(0, None) <= 0.2
    assert 1.0 <= asking.wait_s(0, "1") <= 1.0
    assert asking.wait_s(20, "100") == 5.0


@pytest.mark.parametrize("count", [3, 100])
def test_tables_and_frames_come_back_as_what_they_were(serve: Serve, count: int) -> None:
    table = pa.table({"x": [float(i) for i in range(count)]})
    with client.Client(serve(doubled), part=40) as asked:
        assert asked.predict(table)["prediction"].to_pylist() == [2.0 * i for i in range(count)]
        frame = pd.DataFrame({"x": range(count)}, index=range(7, 7 + count))
        told = asked.predict(frame)
    assert list(told.index) == list(frame.index)
    assert list(told["prediction"]) == [2 * i for i in range(count)]


def test_the_asynchronous_client_says_the_same(serve: Serve) -> None:
    def reply(rows: list[dict[str, Any]], before: int) -> Reply:
        return doubled(rows, before) if before else (503, {"retry-after": "0"}, {})

    async def main() -> Any:
        async with client.AsyncClient(serve(reply)) as asked:
            return await asked.predict([{"x": 3}])

    assert asyncio.run(main()) == [{"prediction": 6}]


def test_the_key_goes_with_every_request(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(client.KEY, "rm_1_a")
    seen.clear()
    client.predict(serve(doubled), [{"x": 1}])
    with client.Client(serve(doubled), api_key="rm_2_b") as asked:
        asked.predict([{"x": 1}])
    assert seen == ["Bearer rm_1_a", "Bearer rm_2_b"]


def test_retries_stay_within_a_budget_and_the_deadline(serve: Serve) -> None:
    url = serve(lambda rows, before: (503, {"retry-after": "0"}, {}))
    with client.Client(url) as asked:
        for match in ("6 tries", "6 tries", "no more retries"):
            with pytest.raises(RaymillError, match=match):
                asked.predict([{"x": 1}])
    slow = serve(lambda rows, before: (429, {"retry-after": "3"}, {}))
    with client.Client(slow, deadline_s=1) as asked, pytest.raises(RaymillError, match="within 1 s"):
        asked.predict([{"x": 1}])


def test_a_missing_key_is_told_with_the_cure(serve: Serve) -> None:
    with pytest.raises(RaymillError, match="RAYMILL_API_KEY"):
        client.predict(serve(lambda rows, before: (401, {}, {"detail": "no"})), [{"x": 1}])
