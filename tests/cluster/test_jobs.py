"""A cluster on loopback behind its token; jobs that are one, tell the truth and end whole."""

from __future__ import annotations

import io
import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from raymill.cluster import state
from raymill.cluster.attach import is_ours, job_url, located
from raymill.cluster.environment import token
from raymill.cluster.job_api import JobApi
from raymill.cluster.jobs import ORDER, cause, package, stop, submit
from raymill.cluster.local import ray_session
from raymill.cluster.probe import GuardState, guard, guard_http
from raymill.cluster.processes import listeners
from raymill.cluster.project import Project
from raymill.cluster.spec import ClusterSpec
from raymill.cluster.state import ClusterState
from raymill.cluster.up import down, up
from raymill.errors import UsageError
from raymill.reaper import marked

SPEC = b"name: t\ndata: {source: none.csv, target: y}\nmodel: {family: 'own:build'}\n"
SLEEPER = b"import time\nprint('HERE', flush=True)\ntime.sleep(600)\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a cluster with a head and one worker, which is ended last."""
    place = tmp_path_factory.mktemp("home")
    up(place, workers=1)
    yield place
    if state.read(place) is not None:
        down(place)


@pytest.fixture
def api(home: Path) -> Iterator[JobApi]:
    with JobApi(job_url(None, home)) as client:
        yield client


def known(home: Path) -> ClusterState:
    found = state.read(home)
    assert found is not None
    return found


def project(own: bytes = b"build = None\n", **changes: list[str]) -> Project:
    return Project("t", {"raymill.yaml": SPEC, "own.py": own}, "raymill.yaml", **changes)


def wait(api: JobApi, id: str, text: str = "") -> None:
    """Until the job has said `text`, or without one has ended."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        job = api.get(id)
        assert job is not None
        if (text and text in api.logs(id)) or (not text and job.over):
            return
        assert not job.over, api.logs(id)
        time.sleep(0.3)
    raise AssertionError(api.logs(id))


def test_everything_listens_on_loopback_and_asks_for_the_token(home: Path) -> None:
    found = known(home)
    pids = set(marked(f"RAYMILL_SESSION={found.mark}".encode()))
    mine = [each for each in listeners() if each.pid in pids]
    assert len(mine) > 5 and all(each.loopback for each in mine)
    assert guard(found.address) is GuardState.GUARDED
    assert guard_http(found.dashboard) is GuardState.GUARDED
    assert [node.name for node in found.nodes] == ["head", "worker-1"]


@pytest.mark.parametrize("headers, codes", [
    ({}, {401}),
    ({"Authorization": "Bearer wrong"}, {403}),
    ({"Origin": "https://evil.example", "User-Agent": "Mozilla/5.0", "good": "1"}, {403, 405}),
    ({"Host": "evil.example"}, {401}),
], ids=["no token", "bad token", "a browser", "a rebinding host"])
def test_nobody_else_starts_a_job(
    home: Path, api: JobApi, headers: dict[str, str], codes: set[int], tmp_path: Path
) -> None:
    if headers.pop("good", None):
        headers["Authorization"] = f"Bearer {token()}"  # even one that holds the token
    before = [job.id for job in api.list()]
    body = {"entrypoint": f"touch {tmp_path / 'ran'}"}
    answer = httpx.post(f"{known(home).dashboard}/api/jobs/", headers=headers, json=body,
                        trust_env=False, timeout=30)
    assert answer.status_code in codes
    assert [job.id for job in api.list()] == before and not (tmp_path / "ran").exists()


def test_a_failed_job_tells_its_exit_code_and_a_new_one_is_another(
    home: Path, api: JobApi
) -> None:
    first, fresh = submit(api, project(), str(home))
    assert fresh
    text = "".join(api.follow(first.id))
    wait(api, first.id)
    job = api.get(first.id)
    assert job is not None and job.status == "FAILED" and job.exit_code == 2, text
    assert "own:build must name a function" in text and "bad spec" in cause(job)
    assert text == api.logs(first.id)


def test_the_same_id_twice_is_one_job_and_a_stopped_one_leaves_nothing(
    home: Path, api: JobApi
) -> None:
    first, fresh = submit(api, project(SLEEPER), str(home), "mine")
    wait(api, "mine", "HERE")
    again, second = submit(api, project(SLEEPER), str(home), "mine")
    assert (fresh, second) == (True, False) and again.id == first.id
    assert [job.id for job in api.list()].count("mine") == 1
    job = stop(api, "mine")
    assert job.status == "STOPPED"
    left = [p for p in psutil.process_iter(["cmdline"])
            if "raymill.yaml" in (p.info["cmdline"] or []) and p.uids().real == os.getuid()
            and p.environ().get("RAYMILL_HOME") == str(home)]
    assert not left
    assert submit(api, project(SLEEPER), str(home), "mine")[1] is False


def test_a_cluster_without_what_the_job_needs_says_so(
    home: Path, api: JobApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raymill.cluster.jobs.platform.python_version_tuple",
                        lambda: ("3", "99", "0"))
    job, _ = submit(api, project(variables=["NO_SUCH_VARIABLE"]), str(home))
    wait(api, job.id)
    text = api.logs(job.id)
    assert "sent from python 3.99" in text and "must hold NO_SUCH_VARIABLE" in text
    ended = api.get(job.id)
    assert ended is not None and ended.exit_code == 2


def test_a_session_attaches_by_auto_and_by_the_environment(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = known(home).address
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert located(ClusterSpec(address="auto"), home).address == address
    with ray_session(located(ClusterSpec(address="auto"), home)) as capacity:
        assert (capacity.cpus, capacity.address) == (1, address)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert located(ClusterSpec(), home).address == "10.0.0.1:6379"
    assert located(ClusterSpec(cpus=2), home).address == "local"
    monkeypatch.setenv("RAY_ADDRESS", "ray://10.0.0.1:10001")
    with pytest.raises(UsageError, match="raymill submit"):
        located(ClusterSpec(), home)
    assert is_ours(known(home).dashboard, home) and not is_ours("http://127.0.0.1:1", home)


def test_a_lost_worker_is_told_and_down_leaves_nothing(home: Path) -> None:
    found = known(home)
    with pytest.raises(UsageError, match="one cluster"):
        up(home)
    os.kill(found.nodes[-1].pid, 9)
    end = time.monotonic() + 20
    while known(home).nodes[-1].alive and time.monotonic() < end:
        time.sleep(0.1)
    assert [node.alive for node in known(home).nodes] == [True, False]
    ended = down(home)
    assert not marked(f"RAYMILL_SESSION={ended.mark}".encode())
    assert not Path(ended.folder).exists()
    with pytest.raises(UsageError, match="no cluster"):
        down(home)


def test_equal_projects_are_equal_bytes_and_hold_no_value_of_a_variable(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "canary")
    content = package(project(variables=["PGPASSWORD"]))
    assert content == package(project(variables=["PGPASSWORD"]))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        order = archive.read(ORDER).decode()
        assert "PGPASSWORD" in order
        assert not any(b"canary" in archive.read(name) for name in archive.namelist())


def test_the_token_does_not_travel_in_the_clear() -> None:
    with pytest.raises(UsageError, match="in the clear"):
        JobApi("http://10.0.0.1:8265")
    with pytest.raises(UsageError, match="nothing does"):
        JobApi("http://127.0.0.1:1")


def test_a_cluster_that_answers_without_a_token_is_refused() -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Open(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Open) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(UsageError, match="must ask for a token"):
            JobApi(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
