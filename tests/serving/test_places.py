"""Models as applications of one cluster, as their user sees them: each has its own address, limits
and end, and goes on when a node is lost. Starts one cluster for all of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import httpx
import psutil
import pytest
import ray

from raymill.cli.main import main
from raymill.cluster import state
from raymill.cluster.keeper import _RAY
from raymill.cluster.state import ClusterState
from raymill.cluster.up import down, up
from raymill.errors import UsageError
from raymill.ports import free_port
from raymill.reaper import marked
from raymill.serving import service
from raymill.serving.spec import ReplicasSpec, ServingSpec
from raymill.serving.state import ServiceStatus
from raymill.training.bundle import Bundle

from .models import version_of

ROWS = [{"x": 3.5, "colour": "red"}]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Serve's, when imported


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("home")
    up(place, workers=1, head_cpus=1)
    yield place
    if state.read(place) is not None:
        down(place)


@pytest.fixture(scope="module")
def served(home: Path, bundle: Bundle) -> Iterator[dict[str, ServiceStatus]]:
    """`toy` on both nodes, and `other`, which takes three rows at most."""
    def start(name: str, **changes: Any) -> ServiceStatus:
        version = version_of(bundle)
        version.name = name
        spec = ServingSpec(port=free_port(), **changes)
        return service.start_detached(version, spec, home, lambda event: None,
                                      cluster=known(home).address)

    with ThreadPoolExecutor() as pool:
        toy = pool.submit(start, "toy", replicas=ReplicasSpec(min=2, max=2))
        other = pool.submit(start, "other", replicas=ReplicasSpec(max=1), max_rows=3)
        yield {"toy": toy.result(), "other": other.result()}
    for each in service.status(home):
        service.stop(home, each.name)


def known(home: Path) -> ClusterState:
    found = state.read(home)
    assert found is not None
    return found


def replicas(home: Path, name: str) -> dict[int, list[psutil.Process]]:
    """The replicas of a model that live, by the process that holds their node."""
    nodes = {node.pid for node in known(home).nodes}
    found: dict[int, list[psutil.Process]] = {}
    for pid in marked(f"RAYMILL_SESSION={known(home).mark}".encode()):
        try:
            process = psutil.Process(pid)
            if process.name().startswith(f"ray::ServeReplica:{name}"[:15]) and (
                    f"ServeReplica:{name}:" in " ".join(process.cmdline())):
                above = next((p.pid for p in process.parents() if p.pid in nodes), 0)
                found.setdefault(above, []).append(process)
        except psutil.Error:
            continue
    return found


def until(condition: Callable[[], object], limit_s: float = 120) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "not within the time"
        time.sleep(0.1)


class Load:
    """Requests from several clients at once, all the time; `answers` counts them by status."""

    def __init__(self, url: str) -> None:
        self.answers: dict[str, int] = {}
        self._url, self._ended, self._lock = url, threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with httpx.Client(timeout=30) as client:
            while not self._ended.is_set():
                try:
                    told = str(client.post(self._url + "/predict", json={"rows": ROWS}).status_code)
                except httpx.HTTPError as error:
                    told = type(error).__name__
                with self._lock:
                    self.answers[told] = self.answers.get(told, 0) + 1


def test_each_model_has_its_own_address_limits_and_metrics(
    served: dict[str, ServiceStatus], home: Path
) -> None:
    assert {each.name: each.cluster for each in service.status(home)} == dict.fromkeys(
        ("other", "toy"), known(home).address)
    for name, four in (("toy", 200), ("other", 422)):
        url = served[name].url
        assert httpx.post(url + "/predict", json={"rows": ROWS * 4}).status_code == four
        answer = httpx.post(url + "/predict", json={"rows": ROWS})
        assert answer.json()["model"] == name and "server" not in answer.headers
        assert httpx.get(f"{url}/v2/models/{name}").status_code == 200
        for path in ("/docs", "/openapi.json", "/readyz", "/healthz"):
            assert httpx.get(url + path).status_code == 200
        assert httpx.get(f"{url}/{name}/readyz").status_code == 404
        counts = httpx.get(url + "/metrics").text
        assert f'path="/predict",status="{four}"' in counts
    assert "raymill_replicas 2" in httpx.get(served["toy"].url + "/metrics").text
    assert 'status="422"' not in httpx.get(served["toy"].url + "/metrics").text


def test_replicas_are_spread_and_all_of_it_listens_on_loopback(
    served: dict[str, ServiceStatus], home: Path
) -> None:
    assert sorted(map(len, replicas(home, "toy").values())) == [1, 1]
    folders = [f"RAYMILL_SERVICE={each.folder}".encode() for each in served.values()]
    marks = [f"RAYMILL_SESSION={known(home).mark}".encode(), *folders]
    ours = {pid for mark in marks for pid in marked(mark)}
    hosts = {c.laddr.ip for c in psutil.net_connections("inet")
             if c.pid in ours and c.status == psutil.CONN_LISTEN}
    assert hosts <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


def test_a_model_goes_on_without_a_node_and_uses_one_that_is_added(
    served: dict[str, ServiceStatus], home: Path
) -> None:
    lost = next(node.pid for node in known(home).nodes if node.name != "head")
    with Load(served["toy"].url) as load:
        until(lambda: load.answers.get("200", 0) > 50)
        for process in (*psutil.Process(lost).children(), psutil.Process(lost)):
            process.kill()
        until(lambda: service.status(home, "toy")[0].replicas == 1)
        add_node(home)
        until(lambda: service.status(home, "toy")[0].replicas == 2)
    assert load.answers.pop("200") > 50 and load.answers == {}
    # Its only replica may have been on the lost node, and starts anew meanwhile.
    until(lambda: status_of(served["other"].url) == 200)


def status_of(url: str) -> int:
    """Of an answer to one row; 0: none came in time."""
    try:
        return httpx.post(url + "/predict", json={"rows": ROWS}, timeout=10).status_code
    except httpx.HTTPError:
        return 0


def add_node(home: Path) -> None:
    """One more node, which is ended with the cluster."""
    found = known(home)
    variables = {"RAYMILL_SESSION": found.mark, "RAY_ADDRESS": found.address,
                 "RAY_TMPDIR": found.folder}
    process = subprocess.Popen(
        [sys.executable, "-c", _RAY, "start", "--block", "--disable-usage-stats",
         f"--address={found.address}", "--node-ip-address=127.0.0.1", "--num-cpus=1",
         "--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0",
         f"--object-store-memory={100 * 2**20}"],
        env=os.environ | variables, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True)
    process.returncode = 0  # nobody waits for it


def test_a_model_ends_alone_also_when_its_supervisor_was_killed(
    served: dict[str, ServiceStatus], home: Path
) -> None:
    os.kill(served["other"].pid, signal.SIGKILL)
    until(lambda: service.status(home, "other")[0].state == "dead")
    service.stop(home, "other")
    until(lambda: not replicas(home, "other"))
    assert [each.name for each in service.status(home)] == ["toy"]
    assert httpx.post(served["toy"].url + "/predict", json={"rows": ROWS}).status_code == 200


def test_the_end_of_the_cluster_ends_its_services_first(
    served: dict[str, ServiceStatus], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = f"RAYMILL_SESSION={known(home).mark}".encode()
    monkeypatch.setenv("RAYMILL_HOME", str(home))
    assert main(["cluster", "down", "--json"]) == 0
    assert service.status(home) == [] and marked(mark) == []
    assert marked(f"RAYMILL_SERVICE={served['toy'].folder}".encode()) == []


def test_what_no_node_has_room_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from raymill.serving.places import _check_room

    def nodes(*cpus: float) -> None:
        monkeypatch.setattr(ray, "nodes", lambda: [
            {"Alive": True, "Resources": {"CPU": each}} for each in cpus])

    spec = ServingSpec(cpus_per_replica=2, replicas=ReplicasSpec(min=2, max=8))
    nodes(2, 3)
    _check_room(spec)  # the other six wait for nodes
    nodes(3, 1, 1)
    with pytest.raises(UsageError, match=r"replicas\.min=2.*room for 1"):
        _check_room(spec)
    nodes(2, 3)
    with pytest.raises(UsageError, match="room for 0"):
        _check_room(spec.model_copy(update={"gpus_per_replica": 0.5}))


def test_the_end_of_a_cluster_is_told() -> None:
    from raymill.serving.places import InCluster

    order: Any = SimpleNamespace(name="toy", cluster=f"127.0.0.1:{free_port()}")
    place = InCluster(order)
    place.check()  # it may be busy
    place._seen -= 10
    with pytest.raises(Exception, match=r"is over.*cluster up"):
        place.check()
