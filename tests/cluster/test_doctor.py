"""The doctor tells what is wrong, with its cure, and finds nothing wrong where nothing is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raymill.cluster import doctor
from raymill.cluster.findings import Finding
from raymill.cluster.processes import leftovers, listeners, orphans


def levels(findings: list[Finding]) -> set[str]:
    return {finding.level for finding in findings}


def test_what_is_wrong_has_a_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE", "1")
    monkeypatch.setattr(doctor, "gpus", list)  # imports torch
    found = doctor.look(tmp_path)
    assert {f.check for f in found if f.level == "fail"} >= {"authentication", "environment"}
    assert all(f.cure for f in found if f.level != "ok")


def test_packages_and_the_exporter_of_this_environment_fit() -> None:
    assert levels([*doctor.python(), *doctor.packages(), *doctor.exporter()]) == {"ok"}


def test_a_package_outside_its_bounds_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requires", lambda _: [
        "numpy>=99", "no-such-package>=1", "ray[data]>=2.60", "boto3>=1; extra == 's3'"])
    found = doctor.packages()
    assert [f.level for f in found] == ["fail", "fail"]
    assert "numpy" in found[0].text and "not installed" in found[1].text


def test_a_token_that_others_read_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert levels(doctor.token()) == {"ok"}
    token.write_text("t" * 64)
    token.chmod(0o644)
    assert doctor.token()[0].cure == f"chmod 600 {token}"
    token.chmod(0o600)
    assert levels(doctor.token()) == {"ok"}


def test_full_disks_and_few_files_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._free("disk", Path("/x"), 10**8).level == "fail"
    assert doctor._free("disk", Path("/x"), 2 * 2**30).level == "warn"
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 4096))
    assert doctor.open_files()[0].level == "fail"
    assert doctor.open_files()[0].cure == "ulimit -n 4096"


def test_marked_processes_without_a_reaper_are_orphans() -> None:
    code = "import time; time.sleep(60)"
    lost = subprocess.Popen([sys.executable, "-IS", "-c", code],
                            env={**os.environ, "RAYMILL_SESSION": "nobody"})
    kept = subprocess.Popen([sys.executable, "-IS", "-c", code],
                            env={**os.environ, "RAYMILL_SESSION": "somebody"})
    reaper = subprocess.Popen([sys.executable, "-IS", "-c", code, "reaper.py",
                               "RAYMILL_SESSION=somebody"])
    try:
        time.sleep(0.3)
        found = orphans()
        assert lost.pid in found and kept.pid not in found
    finally:
        for process in (lost, kept, reaper):
            process.kill()
            process.wait()


def test_folders_that_nobody_uses_are_leftovers(tmp_path: Path) -> None:
    for name, file in (("raymill-abcd_123", "data-logging.yaml"), ("rm-abcdefgh", "order.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
    assert [p.name for p in leftovers(tmp_path)] == ["raymill-abcd_123", "rm-abcdefgh"]


def test_folders_of_others_are_not_told_to_be_removed(tmp_path: Path) -> None:
    for name in ("rm-backup", "rm-stuvwxyz", "raymill-logs-b", "raymill-project1", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "rm-backup" / "order.json").touch()
    (tmp_path / "raymill-project1" / "raymill.yaml").touch()
    (tmp_path / "rm-linkabcd").symlink_to(tmp_path / "rm-backup")
    assert leftovers(tmp_path) == []


def test_a_port_that_is_open_to_others_is_found() -> None:
    code = ("import socket, time\ns = socket.socket(); s.bind(('0.0.0.0', 0)); s.listen()\n"
            "time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-IS", "-c", code],
                               env={**os.environ, "RAYMILL_SERVICE": "test"})
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            mine = [each for each in listeners() if each.pid == process.pid]
            if mine:
                break
            time.sleep(0.1)
        assert mine and not mine[0].loopback
        assert doctor.ports()[0].level == "fail"
    finally:
        process.kill()
        process.wait()


def test_loopback_is_told_from_open() -> None:
    from raymill.cluster.processes import Listener

    for ip, loopback in (("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True),
                         ("0.0.0.0", False), ("::", False), ("10.0.0.1", False)):
        assert Listener(1, "x", ip, 1).loopback is loopback
