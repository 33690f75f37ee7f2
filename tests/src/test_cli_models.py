"""What `raymill models`, `runs` and the end of `raymill run` say of services."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from raymill.cli import models
from raymill.cli.main import main
from raymill.cli.run import _next
from raymill.serving.state import ServiceStatus, write
from raymill.tracking.home import Home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYMILL_HOME", str(tmp_path / "home"))
    return Home.find().path


def serves(home: Path, version: int, state: Any) -> None:
    """A service of `toy`, led by this process."""
    created = psutil.Process().create_time()
    write(home, ServiceStatus(
        name="toy", version=version, digest="d", url="http://127.0.0.1:8000", state=state,
        pid=os.getpid(), created=created, folder="/none", since=0.0))


@pytest.mark.parametrize(("state", "where"), [
    ("ready", "http://127.0.0.1:8000"), ("starting", None), ("stopping", None), ("failed", None),
    ("dead", None)])
def test_a_model_is_served_where_its_service_is_ready(
    state: str, where: str | None, home: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    version = SimpleNamespace(name="toy", version=3, to_dict=lambda: {"name": "toy", "version": 3})
    registry = SimpleNamespace(versions=lambda name: [version])
    monkeypatch.setattr(models, "_registry", lambda options, home: registry)
    serves(home, 3, state)
    assert main(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"][0]["served_at"] == where


def test_runs_are_of_the_home_whatever_the_registry(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", "--tracking", "http://mlflow.example"]) == 2
    assert "--tracking" in capsys.readouterr().err
    assert main(["runs", "--json"]) == 0


def test_the_ui_opens_among_trained_models(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = [sys.executable, "-c", ""]
    monkeypatch.setattr("raymill.tracking.store.ui_command", lambda home, port: said)
    assert main(["ui", "--port", "5057", "--json"]) == 0
    url = json.loads(capsys.readouterr().out)["url"]
    assert url == "http://127.0.0.1:5057/#/experiments?workflowType=machine_learning"


def test_a_new_champion_is_told_with_what_has_a_service_follow(home: Path) -> None:
    assert _next("toy", 4) == "next: raymill serve toy --detach"
    serves(home, 3, "ready")
    assert _next("toy", 4).endswith("next: raymill promote toy 4") and "version 3" in _next("toy", 4)
    serves(home, 4, "ready")
    assert "served already" in _next("toy", 4)
