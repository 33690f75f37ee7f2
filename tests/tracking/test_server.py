"""MLflow behind HTTP: the UI is closed to others, and a server can take the place of the file."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from raymill.tracking.home import Home
from raymill.tracking.mlflow_writer import MLflowWriter, catch_up, mlflow_run_id
from raymill.tracking.registry import Registry
from raymill.tracking.runs import Run
from raymill.tracking.store import open_store, ui_command
from raymill.training.bundle import Bundle

# MLflow 3.17 calls a loader that SQLAlchemy 2.1 is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")
MakeBundle = Callable[[float], Bundle]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """`raymill ui`'s own command: its address and process."""
    theirs = Home.find(tmp_path_factory.mktemp("server") / "home")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(ui_command(theirs, port), stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, start_new_session=True) as process:
        for _ in range(240):
            try:
                httpx.get(f"{address}/health")
                break
            except httpx.TransportError:
                time.sleep(0.25)
        yield address, process.pid
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def test_ui_answers_only_its_own_host(server: tuple[str, int]) -> None:
    address, _ = server
    assert httpx.get(address).status_code == 200
    assert httpx.get(address, headers={"host": "evil.example"}).status_code == 403


def test_ui_takes_no_change_from_another_site(server: tuple[str, int]) -> None:
    answer = httpx.post(f"{server[0]}/api/2.0/mlflow/experiments/create", json={"name": "x"},
                        headers={"origin": "http://evil.example"})
    assert answer.status_code == 403


def test_versions_live_on_a_server(
    server: tuple[str, int], home: Home, make_bundle: MakeBundle
) -> None:
    uri = server[0]
    with Run.begin(home, "served", "k", "name: served") as run:
        with MLflowWriter(uri, "served", run, home) as writer:
            run.journal.append("metrics", a=1.0)
    assert not writer.unsent
    registry = Registry(uri, home)
    registry.register("served", make_bundle(1.0), run.id, {"a": 1.0}, {})
    registry.promote("served", 1)
    shutil.rmtree(home.artifacts / "models", ignore_errors=True)
    found = registry.resolve("served")
    assert (found.version, found.run_id) == (1, run.id)
    assert found.bundle_path is not None
    assert Bundle.open(found.bundle_path).digest == make_bundle(1.0).digest
    model = open_store(uri, home).get_model_version("served", "1")
    assert model.run_id == mlflow_run_id(run, uri)


def test_stopped_server_holds_up_nothing_and_loses_nothing(
    server: tuple[str, int], home: Home, capfd: pytest.CaptureFixture[str]
) -> None:
    uri, leader = server
    client = open_store(uri, home)
    os.killpg(leader, signal.SIGSTOP)
    try:
        with Run.begin(home, "stopped", "k", "name: stopped") as run:
            with MLflowWriter(uri, "stopped", run, home, patience_s=1) as writer:
                slowest = 0.0
                for epoch in range(50):
                    began = time.perf_counter()
                    run.journal.append("epoch", epoch=epoch, metrics={"loss": 1 / (epoch + 1)})
                    slowest = max(slowest, time.perf_counter() - began)
        assert writer.unsent
        assert slowest < 0.5
    finally:
        os.killpg(leader, signal.SIGCONT)
    catch_up(uri, home)
    run_id = mlflow_run_id(run, uri)
    assert run_id is not None
    assert [m.step for m in client.get_metric_history(run_id, "loss")] == list(range(50))
    assert client.get_run(run_id).info.status == "FINISHED"
    experiment = client.get_run(run_id).info.experiment_id
    assert len(client.search_runs([experiment])) == 1
    assert capfd.readouterr().out == ""


def test_command_names_no_other_interface(tmp_path: Path) -> None:
    command = ui_command(Home.find(tmp_path / "home"), 5000)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false" in command
