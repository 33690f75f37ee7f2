"""A local Ray listens on loopback, asks for its token, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from raymill.cluster.local import ray_session
from raymill.cluster.probe import GuardState, guard
from raymill.cluster.spec import ClusterSpec
from raymill.errors import RaymillError, UsageError
from raymill.reaper import marked

DRIVER = Path(__file__).with_name("driver.py")


class Driver:
    """driver.py as a process of its own group, as a terminal would start it."""

    def __init__(self, folder: Path) -> None:
        (folder / "users_module.py").write_text("ANSWER = 42\n")
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("RAY", "PYTHONP"))
        }
        environment["RAY_AUTH_TOKEN_PATH"] = str(folder / "private" / "token")
        self.process = subprocess.Popen(
            [sys.executable, str(DRIVER), str(folder)], stdout=subprocess.PIPE, text=True,
            env=environment, start_new_session=True,
        )
        assert self.process.stdout is not None
        self.state: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.token = folder / "private" / "token"

    def alive(self) -> list[int]:
        return marked(f"RAYMILL_SESSION={self.state['mark']}".encode())

    def gone_within(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if not self.alive() and not Path(self.state["folder"]).exists():
                return True
            time.sleep(0.1)
        return False

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def _addresses(pids: list[int]) -> set[str]:
    return {
        connection.laddr.ip
        for pid in pids if psutil.pid_exists(pid)
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def test_a_session_is_private_and_leaves_nothing_after_kill(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    try:
        state = driver.state
        assert (state["answer"], state["cpus"]) == (42, 2)
        assert state["worker_address"] == state["address"]
        pids = [*driver.alive(), driver.process.pid]
        assert len(pids) > 5
        assert _addresses(pids) <= {"127.0.0.1", "::ffff:127.0.0.1"}
        assert driver.token.stat().st_mode & 0o777 == 0o600
        assert Path(state["folder"]).stat().st_mode & 0o777 == 0o700
        assert guard(state["address"]) is GuardState.GUARDED
        driver.process.kill()
        assert driver.gone_within(20), driver.alive()
    finally:
        driver.close()


def test_control_c_leaves_nothing(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    try:
        os.killpg(driver.process.pid, signal.SIGINT)
        assert driver.process.wait(40) == 130
        assert not driver.alive()
        assert not Path(driver.state["folder"]).exists()
    finally:
        driver.close()


def test_two_sessions_at_once_do_not_meet(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = Driver(tmp_path / "one")
    try:
        two = Driver(tmp_path / "two")
        try:
            assert one.state["address"] != two.state["address"]
            assert two.state["worker_address"] == two.state["address"]
            two.process.terminate()
            assert two.gone_within(20), two.alive()
            assert one.alive()
        finally:
            two.close()
    finally:
        one.close()
        assert one.gone_within(20)


def test_sizes_need_a_local_ray() -> None:
    with pytest.raises(UsageError, match="local Ray only"):
        with ray_session(ClusterSpec(address="127.0.0.1:1", cpus=2)):
            pass


def test_a_token_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raymill.cluster.environment import ensure_token

    (tmp_path / "file").write_text("")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "file" / "token"))
    with pytest.raises(RaymillError, match="RAY_AUTH_TOKEN_PATH"):
        ensure_token()


def test_a_token_that_others_can_read_is_tightened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raymill.cluster.environment import ensure_token

    token = tmp_path / "token"
    token.write_text("t" * 64)
    token.chmod(0o644)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    ensure_token()
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.read_text() == "t" * 64


def test_a_failed_start_is_tried_again_once_and_then_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raymill.cluster import local

    calls: list[str] = []

    def fail(**arguments: object) -> None:
        calls.append(os.environ["RAY_ADDRESS"])
        raise RuntimeError("The current node timed out during startup.")

    monkeypatch.setattr(local, "_init", fail)
    monkeypatch.setattr(local, "_running", lambda: False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 64)
    told: list[str] = []
    with pytest.raises(RaymillError, match="timed out during startup"):
        with ray_session(ClusterSpec(), None, lambda event: told.append(event.data["text"])):
            pass
    assert len(set(calls)) == 2
    assert len(told) == 1
    assert "RAY_ADDRESS" not in os.environ


def test_a_program_with_its_own_ray_keeps_it(ray_local: None) -> None:
    import ray

    with ray_session(ClusterSpec()) as capacity:
        assert capacity.cpus == 4
    assert ray.is_initialized()
