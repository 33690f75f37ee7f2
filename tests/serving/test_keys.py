from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from raymill.data.contract import Contract
from raymill.errors import UsageError
from raymill.serving import keys
from raymill.serving.endpoint import build
from raymill.serving.guards import guards_of
from raymill.serving.rates import Rates
from raymill.serving.spec import RateSpec, ServingSpec

from .test_app import GOOD, Client, problem

OPEN = {"/healthz", "/ping", "/v2/health/live", "/v2/health/ready"}


def endpoint(tmp_path: Path, contract: Contract, predictor: Any, **limits: Any) -> Any:
    spec = ServingSpec(keys=True, **limits)
    return build("fraud", 3, spec, contract, predictor, guards_of(spec, tmp_path, tmp_path))


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ring looks at the file for every request."""
    monkeypatch.setattr(keys, "_AGAIN_S", 0.0)


def test_every_route_but_those_of_health_needs_a_key(
    tmp_path: Path, contract: Contract, predictor: Any
) -> None:
    _, text = keys.add(tmp_path, "alice")
    app = endpoint(tmp_path, contract, predictor)
    ask = Client(app)
    closed = [route for route in app.routes if route.path not in OPEN]
    assert {route.path for route in app.routes} - {route.path for route in closed} == OPEN
    assert {"/predict", "/metrics", "/docs", "/openapi.json"} <= {route.path for route in closed}
    for route in closed:
        path = route.path.replace("{model}", "fraud").replace("{version}", "3")
        response = ask(route.method, path)
        problem(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"
        right = ask(route.method, path, headers={"authorization": f"Bearer {text}"})
        assert right.status_code in (200, 400, 415), (route.path, right.text)
    for path in OPEN:
        assert ask("GET", path).status_code == 200


def test_wrong_keys_are_refused_in_every_disguise(
    tmp_path: Path, contract: Contract, predictor: Any
) -> None:
    key, text = keys.add(tmp_path, "alice")
    ask = Client(endpoint(tmp_path, contract, predictor))
    wrong = [b"", b"Bearer", b"Bearer " + text[:-1].encode(), b"Basic " + text.encode(),
             f"Bearer rm_{key.id}_".encode(), f"Bearer xx{text[2:]}".encode(), b"Bearer \xff\xfe",
             f"Bearer rm_{key.id}_{key.digest}".encode(), b"Bearer rm__", b"Bearer " + b"_" * 5000]
    for value in wrong:
        problem(ask("GET", "/docs", headers={b"authorization": value}), 401)
    assert ask("GET", "/docs", headers={"x-api-key": text}).status_code == 200


def test_a_key_is_kept_as_a_hash_only_its_owner_can_read(tmp_path: Path) -> None:
    _, text = keys.add(tmp_path, "alice")
    stored = keys.path_of(tmp_path)
    assert text.split("_")[2] not in stored.read_text()
    assert stored.stat().st_mode & 0o077 == 0
    assert set(json.loads(stored.read_text())[0]) == {"id", "holder", "salt", "digest", "created"}


def test_two_keys_live_while_one_is_rotated(
    tmp_path: Path, contract: Contract, predictor: Any, now: None
) -> None:
    old, old_text = keys.add(tmp_path, "alice")
    ask = Client(endpoint(tmp_path, contract, predictor))
    _, new_text = keys.add(tmp_path, "alice")
    with pytest.raises(UsageError, match="2 live keys"):
        keys.add(tmp_path, "alice")

    def status(text: str) -> int:
        return ask("GET", "/docs", headers={"x-api-key": text}).status_code

    assert (status(old_text), status(new_text)) == (200, 200)
    assert keys.revoke(tmp_path, "alice") == old
    assert (status(old_text), status(new_text)) == (401, 200)
    keys.path_of(tmp_path).unlink()
    assert status(new_text) == 401


def test_there_is_nothing_to_revoke(tmp_path: Path) -> None:
    key, _ = keys.add(tmp_path, "alice")
    for holder, id_ in (("bob", None), ("alice", "0000")):
        with pytest.raises(UsageError, match="has no key"):
            keys.revoke(tmp_path, holder, id_)
    assert keys.live(tmp_path) == [key]
    with pytest.raises(UsageError, match="holder's name"):
        keys.add(tmp_path, "../alice")


def test_a_key_is_never_logged(
    tmp_path: Path, contract: Contract, predictor: Any, caplog: pytest.LogCaptureFixture
) -> None:
    _, text = keys.add(tmp_path, "alice")
    ask = Client(endpoint(tmp_path, contract, predictor))
    with caplog.at_level(logging.DEBUG):
        response = ask("POST", "/predict", json={"rows": [GOOD]}, headers={"x-api-key": text})
        ask("POST", "/predict", json={"rows": [{}]}, headers={"x-api-key": text})
    assert response.status_code == 200
    assert text not in caplog.text and text.split("_")[2] not in caplog.text


@pytest.fixture
def clock() -> list[float]:
    return [100.0]


@pytest.fixture
def two(tmp_path: Path, clock: list[float]) -> Iterator[list[Rates]]:
    """Two replicas' buckets: 2 requests a second, 4 at once."""
    rate = RateSpec(per_s=2, burst=4)
    both = [Rates(tmp_path / "rates", rate, lambda: clock[0]) for _ in range(2)]
    yield both
    for each in both:
        each.close()


def test_a_holder_has_one_bucket_in_all_replicas(two: list[Rates], clock: list[float]) -> None:
    assert [two[i % 2].take("alice") for i in range(4)] == [0, 0, 0, 0]
    assert two[0].take("alice") == pytest.approx(0.5) and two[1].take("alice") > 0
    clock[0] += 1.0
    assert [two[i % 2].take("alice") == 0 for i in range(3)] == [True, True, False]
    clock[0] += 1000
    assert [two[0].take("alice") == 0 for _ in range(5)] == [True] * 4 + [False]


def test_one_holder_cannot_use_up_anothers_tokens(two: list[Rates]) -> None:
    for _ in range(10):
        two[0].take("alice")
    assert two[0].take("bob") == 0 and two[1].take("carol") == 0


def test_asking_too_often_is_429_with_when_to_come_back(
    tmp_path: Path, contract: Contract, predictor: Any
) -> None:
    headers = {"x-api-key": keys.add(tmp_path, "alice")[1]}
    other = {"x-api-key": keys.add(tmp_path, "bob")[1]}
    app = endpoint(tmp_path, contract, predictor, rate=RateSpec(per_s=0.1, burst=2))

    async def main() -> list[httpx.Response]:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://e"
        ) as client:
            return [await client.get("/docs", headers=each)
                    for each in (headers, headers, headers, other)]

    answers = asyncio.run(main())
    assert [each.status_code for each in answers] == [200, 200, 429, 200]
    assert answers[2].headers["retry-after"] == "10"


@pytest.mark.parametrize(
    ("given", "match"),
    [({"host": "0.0.0.0"}, "needs keys: true"), ({"host": "192.168.0.7"}, "needs keys: true"),
     ({"host": "example.org"}, "IPv4 address"), ({"host": "127.0.0.1\n bind *:1"}, "IPv4 address"),
     ({"rate": {"per_s": 1}}, "needs keys: true")],
)
def test_nobody_else_is_let_in_without_keys(given: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ServingSpec.model_validate(given)


def test_the_url_is_one_that_this_machine_can_ask() -> None:
    tls = {"cert": "c", "key": "k"}
    assert ServingSpec.model_validate({"host": "0.0.0.0", "keys": True}).url == "http://127.0.0.1:8000"
    assert ServingSpec.model_validate({"tls": tls}).url == "https://127.0.0.1:8000"
