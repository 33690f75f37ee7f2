from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pyarrow as pa
import pytest

from raymill.data.contract import Contract
from raymill.serving.endpoint import build
from raymill.serving.spec import ServingSpec

GOOD = {"x": 7.0, "code": "AB"}
SECRET = "hunter2-4711"
JSON = {"content-type": "application/json"}


class Client:
    """One endpoint in this process, asked through its ASGI interface."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, method: str, path: str, **request: Any) -> httpx.Response:
        async def main() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://e") as client:
                return await client.request(method, path, **request)

        return asyncio.run(main())

    def predict(self, rows: Any) -> httpx.Response:
        return self("POST", "/predict", json={"rows": rows})

    def body(self, body: bytes | str, **headers: str) -> httpx.Response:
        return self("POST", "/predict", content=body, headers={**JSON, **headers})


@pytest.fixture
def ask(contract: Contract, predictor: Any) -> Client:
    limits = ServingSpec(max_rows=4, max_body_mb=0.01)
    return Client(build("fraud", 3, limits, contract, predictor))


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document, when the response is a well-formed one."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["status"] == status and document["title"] and document["detail"]
    assert SECRET not in response.text and "Traceback" not in response.text
    return document


def test_a_prediction_has_class_probabilities_model_and_version(ask: Client) -> None:
    response = ask.predict([GOOD, {"x": 2, "code": "AB", "n": None, "colour": "red"}])
    assert response.status_code == 200
    answer = response.json()
    assert answer["model"] == "fraud" and answer["version"] == 3
    assert [row["prediction"] for row in answer["predictions"]] == ["fraud", "fine"]
    assert answer["predictions"][0]["probability"] == pytest.approx({"fine": 0.3, "fraud": 0.7})


def test_columns_the_model_does_not_read_may_be_sent_along(ask: Client) -> None:
    assert ask.predict([{**GOOD, "id": SECRET, "target": "fine"}]).status_code == 200


@pytest.mark.parametrize(
    ("row", "field", "rule"),
    [
        ({"x": SECRET, "code": "AB"}, "x", "finite number"),
        ({"x": None, "code": "AB"}, "x", "not be empty"),
        ({"code": "AB"}, "x", "not be empty"),
        ({"x": True, "code": "AB"}, "x", "finite number"),
        ({"x": [1], "code": "AB"}, "x", "finite number"),
        ({"x": {"a": 1}, "code": "AB"}, "x", "finite number"),
        ({"x": 11, "code": "AB"}, "x", "<= 10"),
        ({"x": -1, "code": "AB"}, "x", ">= 0"),
        ({"x": 10**30, "code": "AB"}, "x", "<= 10"),
        ({**GOOD, "n": 1.5}, "n", "whole number"),
        ({**GOOD, "n": 10**30}, "n", "whole number"),
        ({**GOOD, "n": "1"}, "n", "whole number"),
        ({**GOOD, "colour": SECRET}, "colour", "one of red, blue"),
        ({**GOOD, "colour": 3}, "colour", "text"),
        ({**GOOD, "code": SECRET}, "code", "match"),
        ({**GOOD, "when": SECRET}, "when", "ISO time"),
        ({**GOOD, "when": "2019-12-31"}, "when", ">= 2020-01-01"),
        ({**GOOD, "photo": SECRET}, "photo", ""),
        ({**GOOD, "photo": "aGVsbG8="}, "photo", "image"),
        ({**GOOD, "colr": SECRET}, "colr", "unknown field"),
    ],
)
def test_a_bad_row_is_422_naming_row_field_and_rule_but_not_the_value(
    ask: Client, row: dict[str, Any], field: str, rule: str
) -> None:
    (error,) = problem(ask.predict([GOOD, row]), 422)["errors"]
    assert (error["row"], error["field"]) == (1, field)
    assert rule in error["rule"]


def test_every_bad_field_is_named_at_once(ask: Client) -> None:
    errors = problem(ask.predict([{"x": "a", "code": 1}, {"x": "b", "code": "AB"}]), 422)["errors"]
    assert {(e["row"], e["field"]) for e in errors} == {(0, "x"), (0, "code"), (1, "x")}


@pytest.mark.parametrize("number", ["1e999", "9" * 5000])
def test_a_number_that_json_cannot_hold_is_named_too(ask: Client, number: str) -> None:
    body = '{"rows":[{"x":1,"code":"AB"},{"x":' + number + ',"code":"AB"}]}'
    (error,) = problem(ask.body(body), 422)["errors"]
    assert error == {"row": 1, "field": "x", "rule": "the number is out of range"}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b'{"rows":[{"x":NaN}]}', b'{"rows":[{"x":Infinity}]}', b"\xff\xfe",
        b'{"rows":[{"x":"\xff"}]}', b'{"rows":[{"x":"\\ud800"}]}', b'{"rows":[{}]}}',
        b'{"rows":[{"x":' + b"[" * 9000, b"hunter2-4711",
    ],
)
def test_a_body_that_is_not_json_is_400(ask: Client, body: bytes) -> None:
    problem(ask.body(body), 400)


@pytest.mark.parametrize(
    "body",
    [
        b"null", b"[]", b"3", b'"hunter2-4711"', b"{}", b'{"rows":null}', b'{"rows":{}}',
        b'{"rows":[]}', b'{"rows":[1]}', b'{"rows":[null]}', b'{"rows":[["hunter2-4711"]]}',
        b'{"rows":[{}],"more":1}', b'{"rows":[{},{},{},{},{}]}',
    ],
)
def test_json_of_another_shape_is_422(ask: Client, body: bytes) -> None:
    problem(ask.body(body), 422)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_of_another_type_is_415(ask: Client, kind: str) -> None:
    response = ask("POST", "/predict", content=b'{"rows":[]}', headers={"content-type": kind})
    problem(response, 415)


def test_a_compressed_body_is_415(ask: Client) -> None:
    problem(ask.body(b"x", **{"content-encoding": "gzip"}), 415)


def test_another_path_is_404_and_lists_the_paths(ask: Client) -> None:
    assert "/predict" in problem(ask("GET", f"/{SECRET}"), 404)["detail"]


def test_in_a_cluster_it_is_asked_below_a_path(contract: Contract, predictor: Any) -> None:
    endpoint = build("fraud", 3, ServingSpec(), contract, predictor)

    async def below(scope: Any, receive: Any, send: Any) -> None:
        await endpoint({**scope, "root_path": "/fraud"}, receive, send)

    asked = Client(below)
    assert asked("GET", "/fraud/healthz").status_code == 200
    assert asked("POST", "/fraud/predict", json={"rows": [GOOD]}).status_code == 200
    problem(asked("GET", "/fraud2/healthz"), 404)
    problem(asked("GET", "/fraud"), 404)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("GET", "/predict", "POST"), ("DELETE", "/predict", "POST"), ("OPTIONS", "/predict", "POST"),
     ("POST", "/healthz", "GET, HEAD"), ("PUT", "/docs", "GET, HEAD")],
)
def test_another_method_is_405_and_says_which(
    ask: Client, method: str, path: str, allow: str
) -> None:
    response = ask(method, path)
    problem(response, 405)
    assert response.headers["allow"] == allow


def test_a_long_body_is_413_by_its_length_alone(ask: Client) -> None:
    response = ask.body(b"x" * 20_000)
    assert "10485 bytes" in problem(response, 413)["detail"]
    assert response.headers["connection"] == "close"


def test_a_long_body_without_a_length_is_413_and_read_no_further(ask: Client) -> None:
    sent: list[int] = []

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(1000):
            sent.append(1000)
            yield b" " * 1000

    problem(ask("POST", "/predict", content=chunks(), headers=JSON), 413)
    assert sum(sent) <= 12_000


@pytest.mark.parametrize("length", ["-1", "1e9", "9" * 400, "abc"])
def test_a_length_that_is_no_number_is_refused(ask: Client, length: str) -> None:
    problem(ask.body(b"{}", **{"content-length": length}), 413)


@pytest.fixture
def regression(contract: Contract) -> Contract:
    return Contract(target="target", task="regression", columns=contract.columns)


class Stuck:
    """A model of a number that answers nothing until it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.released.set()

    def predict(self, table: pa.Table) -> pa.Table:
        self.released.wait(20)
        return pa.table({"prediction": [0.5] * len(table)})


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    model = Stuck()
    yield model
    model.released.set()


def test_no_answer_by_the_deadline_is_504_and_a_model_that_hangs_is_noticed(
    regression: Contract, stuck: Stuck
) -> None:
    app = build("m", 1, ServingSpec(deadline_ms=50), regression, stuck)
    ask = Client(app)
    assert ask("GET", "/readyz").status_code == 200
    stuck.released.clear()

    async def main() -> None:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://e"
        ) as client:
            problem(await client.post("/predict", json={"rows": [GOOD]}), 504)
            await asyncio.sleep(0.15)
            assert app.stuck
            problem(await client.get("/readyz"), 503)
            assert (await client.get("/healthz")).status_code == 200
            stuck.released.set()

    asyncio.run(main())


def test_too_many_waiting_is_429_with_when_to_come_back(regression: Contract, stuck: Stuck) -> None:
    app = build("m", 1, ServingSpec(max_waiting=2), regression, stuck)
    stuck.released.clear()

    async def main() -> None:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://e"
        ) as client:
            held = [asyncio.create_task(client.post("/predict", json={"rows": [GOOD]}))
                    for _ in range(2)]
            await asyncio.sleep(0.1)
            refused = await client.post("/predict", json={"rows": [GOOD]})
            problem(refused, 429)
            assert int(refused.headers["retry-after"]) >= 1
            stuck.released.set()
            assert [r.status_code for r in await asyncio.gather(*held)] == [200, 200]

    asyncio.run(main())


class Broken:
    def __init__(self) -> None:
        self.calls = 0

    def predict(self, table: pa.Table) -> pa.Table:
        self.calls += 1
        if self.calls > 5:  # golden rows and the warm-up
            raise RuntimeError(f"cannot score {SECRET}")
        return pa.table({"prediction": [0.5] * len(table)})


def test_a_failing_model_is_500_and_neither_answer_nor_log_quotes_it(
    regression: Contract, caplog: pytest.LogCaptureFixture
) -> None:
    ask = Client(build("m", 1, ServingSpec(), regression, Broken()))
    with caplog.at_level(logging.ERROR, "raymill.serving"):
        problem(ask.predict([GOOD]), 500)
    assert "RuntimeError" in caplog.text and "in predict" in caplog.text
    assert SECRET not in caplog.text


def test_no_request_is_logged(ask: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "raymill"):
        ask.predict([{**GOOD, "id": SECRET}])
        ask.predict([{**GOOD, "colour": SECRET}])
    assert SECRET not in caplog.text


def test_metrics_count_answers_rows_and_the_model(ask: Client) -> None:
    ask.predict([GOOD, GOOD])
    ask.predict([{}])
    ask("GET", f"/{SECRET}")
    text = ask("GET", "/metrics").text
    assert 'raymill_requests_total{path="/predict",status="200",variant="champion",version="3"} 1.0' in text
    assert 'raymill_requests_total{path="/predict",status="422",variant="champion",version="3"} 1.0' in text
    assert 'raymill_requests_total{path="other",status="404",variant="",version=""} 1.0' in text
    assert 'raymill_model_info{name="fraud",variant="champion",version="3"} 1.0' in text
    assert "raymill_held_requests 0.0" in text and SECRET not in text


def test_a_head_request_has_no_body(ask: Client) -> None:
    response = ask("HEAD", "/healthz")
    assert response.status_code == 200 and response.content == b""


def test_a_regression_answers_a_number_alone(regression: Contract, stuck: Stuck) -> None:
    ask = Client(build("m", 1, ServingSpec(), regression, stuck))
    assert ask.predict([GOOD]).json()["predictions"] == [{"prediction": 0.5}]


def test_the_schema_is_served(ask: Client) -> None:
    schema = ask("GET", "/schema").json()
    assert json.dumps(schema) and schema["required"] == ["x", "code"]
