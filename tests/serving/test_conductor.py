"""Models change under load: a supervisor's conductor and a replica's endpoint, without a Ray."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch
import uvicorn

from raymill.errors import RaymillError, UsageError
from raymill.ports import free_port
from raymill.serving import change, state
from raymill.serving.conductor import Conductor
from raymill.serving.endpoint import build_following
from raymill.serving.loading import load_bundle
from raymill.serving.order import Order
from raymill.serving.rollout_state import RolloutStatus, read_rollout
from raymill.serving.spec import ServingSpec
from raymill.serving.state import ServiceStatus
from raymill.tracking.home import Home
from raymill.tracking.registry import Registry

from .models import small_bundle

CHANGES: dict[int, Callable[[torch.Tensor], torch.Tensor]] = {
    1: lambda weight: weight,
    2: lambda weight: weight * 1.0001,
    3: lambda weight: weight * float("nan"),
    4: lambda weight: weight - 5.0,  # says yes to nobody
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    place = tmp_path_factory.mktemp("home")
    home = Home.find(place / "home")
    registry = Registry(home.tracking_uri, home)
    for number, weights in CHANGES.items():
        bundle = small_bundle(place / str(number), change=weights)
        assert registry.register("toy", bundle, None, {}, {}).version == number
    registry.promote("toy", 1)
    return registry


@pytest.fixture(scope="module")
def served(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceStatus]:
    champion, home = registry.resolve("toy"), registry.home.path
    assert champion.bundle_path is not None
    order = Order(
        name="toy", version=1, digest=champion.digest, bundle=str(champion.bundle_path),
        spec=ServingSpec(port=free_port()), home=str(home),
        folder=str(tmp_path_factory.mktemp("service")), parent=0)
    order.write()
    conductor, ended = Conductor(order), threading.Event()
    endpoint = build_following("toy", order.spec, Path(order.folder), conductor.plan,
                               lambda variant: load_bundle(order.of(variant)))
    config = uvicorn.Config(endpoint, port=order.spec.port, log_level="error", access_log=False)
    server = uvicorn.Server(config)

    def supervise() -> None:
        while not ended.wait(0.02):
            conductor.tick()

    threads = [threading.Thread(target=server.run), threading.Thread(target=supervise)]
    for thread in threads:
        thread.start()
    status = state.first(order).but(state="ready", pid=os.getpid(),
                                    created=psutil.Process().create_time())
    state.write(home, status)
    until(lambda: server.started)
    yield status
    server.should_exit = True
    ended.set()
    for thread in threads:
        thread.join()


def said(text: str) -> None:
    """Nobody listens."""


def terms(**changes: Any) -> change.Terms:
    words: dict[str, Any] = {"canary": None, "shadow": False, "ab": None, "share": None,
                             "bake_s": 0.5, "least": 40, "drift": 0.25}
    return change.terms(**words | changes)


def begin(served: ServiceStatus, registry: Registry, version: int, key: str = "",
          **words: Any) -> None:
    change.begin(served, registry.resolve(f"toy:{version}"), terms(**words), key=key,
                 actor="tests", said=said)


@contextmanager
def load(served: ServiceStatus) -> Iterator[list[tuple[int, int]]]:
    """One request after another meanwhile; (status, version) of each."""
    seen, stop = list[tuple[int, int]](), threading.Event()

    def ask() -> None:
        with httpx.Client() as client:
            number = 0
            while not stop.is_set():
                number += 1
                response = client.post(served.url + "/predict", json={"rows": [
                    {"x": float(number % 11), "colour": ["red", "blue"][number % 2]}]})
                seen.append((response.status_code, response.json().get("version", 0)))
                stop.wait(0.005)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
    assert {status for status, _ in seen} == {200}


def rollout(registry: Registry) -> RolloutStatus:
    status = read_rollout(registry.home.path, "toy")
    assert status is not None
    return status


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "not within the time"
        time.sleep(0.1)


def versions(served: ServiceStatus, **headers: str) -> set[int]:
    with httpx.Client(headers=headers) as client:
        return {client.post(served.url + "/predict", json={"rows": [{"x": 1.0}]}).json()["version"]
                for _ in range(10)}


def test_a_model_that_answers_nan_is_refused_before_it_answers_anybody(
    served: ServiceStatus, registry: Registry
) -> None:
    with load(served) as seen, pytest.raises(RaymillError, match="finite"):
        change.promote(served, registry.resolve("toy:3"), actor="tests", reason="", said=said)
    assert {version for _, version in seen} == {1}
    assert registry.resolve("toy").version == 1 and versions(served) == {1}


def test_a_canary_of_a_model_that_answers_otherwise_goes_back_by_itself(
    served: ServiceStatus, registry: Registry
) -> None:
    with load(served):
        begin(served, registry, 4, canary=0.5, bake_s=60)
        until(lambda: rollout(registry).state == "rolled back")
    until(lambda: versions(served) == {1})  # the replica looks at its plan ten times a second
    assert "drift" in rollout(registry).why
    last = registry.audit.read()[-1]
    assert (last["action"], last["actor"]) == ("rollout rolled back", "raymill")
    assert registry.resolve("toy").version == 1


def test_a_key_stays_on_its_version_and_both_can_be_named(
    served: ServiceStatus, registry: Registry
) -> None:
    begin(served, registry, 2, key="X-User", ab="X-User")
    try:
        by_user = {user: versions(served, **{"X-User": str(user)}) for user in range(20)}
        assert all(len(found) == 1 for found in by_user.values())
        assert set.union(*by_user.values()) == {1, 2} and versions(served) == {1}
        metadata = httpx.get(served.url + "/v2/models/toy").json()
        assert metadata["versions"] == ["1", "2"]
        named = httpx.post(served.url + "/v2/models/toy/versions/2/infer", json={"inputs": [
            {"name": "x", "datatype": "FP64", "shape": [1], "data": [3.5]}]})
        assert named.json()["model_version"] == "2"
        with pytest.raises(UsageError, match="under way"):
            begin(served, registry, 4, canary=0.5)
        change.pause(served, "tests", said)
        assert rollout(registry).state == "paused"
        change.resume(served, "tests", said)
    finally:
        change.abort(served, "tests", "seen enough", said)
    assert rollout(registry).state == "aborted" and versions(served, **{"X-User": "1"}) == {1}


def test_a_shadow_scores_copies_and_answers_nobody_until_it_is_promoted_and_rolled_back(
    served: ServiceStatus, registry: Registry
) -> None:
    begin(served, registry, 2, shadow=True)
    with load(served) as seen:
        until(lambda: rollout(registry).counts.get("2", {}).get("copies", 0) >= 40)
    assert {version for _, version in seen} == {1}
    counts = rollout(registry).counts["2"]
    assert counts["agreed"] == counts["copies"] and counts["failed"] == 0
    with load(served) as seen:
        change.promote(served, registry.resolve("toy:2"), actor="tests", reason="", said=said)
        assert versions(served) == {2}
        assert registry.resolve("toy").version == 2
        done = change.rollback(served, lambda: registry.resolve("toy"), actor="tests",
                               reason="why not", said=said)
    assert (done["version"], done["was"]) == (1, 2) and seen[-1][1] == 1
    assert done["champion"] == registry.resolve("toy").to_dict()
    assert registry.resolve("toy").version == 1 and registry.resolve("toy@previous").version == 2
    assert registry.audit.verify() == len(registry.audit.read())
