"""Services as their state files tell of them, without a Ray."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from raymill.errors import UsageError
from raymill.ports import free_port
from raymill.serving import service, state
from raymill.serving.spec import ServingSpec
from raymill.serving.state import ServiceStatus


def known(home: Path, **changes: object) -> ServiceStatus:
    status = ServiceStatus(
        name="toy", version=1, digest="d", url="http://127.0.0.1:1", state="failed", pid=0,
        created=0.0, folder=str(home / "none"), since=0.0,
    ).but(**changes)
    state.write(home, status)
    return status


@pytest.mark.parametrize("how", ["failed", "starting"])
def test_stop_forgets_a_service_that_is_gone(tmp_path: Path, how: str) -> None:
    known(tmp_path, state=how)
    assert len(service.status(tmp_path)) == 1
    service.stop(tmp_path, "toy")
    assert service.status(tmp_path) == []


def test_a_process_that_ends_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    gone = psutil.Process(process.pid)
    process.kill()
    process.wait()
    known(tmp_path, state="ready")
    monkeypatch.setattr(state, "owner", lambda status: gone)
    monkeypatch.setattr(service, "_marked", lambda folder: [gone])
    service.stop(tmp_path, "toy")
    assert service.status(tmp_path) == []


def test_of_two_who_start_a_service_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, started = subprocess.Popen, []

    def sleeper(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        started.append(real(["sleep", "60"]))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", sleeper)
    version = SimpleNamespace(name="toy", version=1, digest="d", bundle_path=tmp_path)
    refused: list[UsageError] = []

    def launch() -> None:
        try:
            service._launch(version, ServingSpec(port=port), tmp_path, parent=0,
                            notify=lambda event: None)
        except UsageError as error:
            refused.append(error)

    port = free_port()
    threads = [threading.Thread(target=launch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        (status,) = service.status(tmp_path)
        assert (status.state, status.pid, len(started)) == ("starting", started[0].pid, 1)
        assert len(refused) == 3 and all("served already" in str(error) for error in refused)
    finally:
        for process in started:
            process.kill()
            process.wait()
        service.stop(tmp_path, "toy")
