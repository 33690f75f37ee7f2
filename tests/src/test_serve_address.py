"""Where `raymill serve` serves."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from raymill import api
from raymill.cluster import probe
from raymill.errors import UsageError
from raymill.tracking.home import Home

HERE = "127.0.0.1:6379"
LOCAL = {"address": "local", "cpus": None, "gpus": None, "object_store_mb": None, "nodes": {}}


def where(
    monkeypatch: pytest.MonkeyPatch, home: Path, cluster: dict[str, Any], said: str | None = None
) -> str:
    run = SimpleNamespace(spec_yaml=yaml.safe_dump({"cluster": LOCAL | cluster}))
    monkeypatch.setattr(api.Run, "open", lambda home, id_: run)
    version: Any = SimpleNamespace(name="toy", run_id="r")
    return api.serving_cluster(version, Home(home), said)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # another cluster of this machine is not meant


@pytest.fixture(autouse=True)
def guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is asked asks for a token, but for those on port 1."""
    monkeypatch.setattr(probe, "guard", lambda address: (
        probe.GuardState.OPEN if address.endswith(":1") else probe.GuardState.GUARDED))


def test_without_a_word_of_a_cluster_a_service_has_a_ray_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert where(monkeypatch, tmp_path, {}) == ""
    assert where(monkeypatch, tmp_path, {"address": HERE}, "local") == ""
    monkeypatch.setenv("RAY_ADDRESS", HERE)
    assert where(monkeypatch, tmp_path, {}, "local") == ""
    assert where(monkeypatch, tmp_path, {"cpus": 2}) == ""  # it sizes a local one


def test_a_cluster_of_this_machine_is_named_in_three_ways(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert where(monkeypatch, tmp_path, {"address": HERE}) == HERE
    assert where(monkeypatch, tmp_path, {}, "localhost:6379") == HERE
    monkeypatch.setenv("RAY_ADDRESS", HERE)
    assert where(monkeypatch, tmp_path, {}) == where(monkeypatch, tmp_path, {}, "auto") == HERE


def test_a_cluster_elsewhere_is_refused_and_not_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for cluster, said in (({"address": "10.0.0.5:6379"}, None), ({}, "10.0.0.5:6379")):
        with pytest.raises(UsageError, match=r"but got 10\.0\.0\.5:6379.*--address local"):
            where(monkeypatch, tmp_path, cluster, said)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.5:6379")
    with pytest.raises(UsageError, match=r"10\.0\.0\.5:6379"):
        where(monkeypatch, tmp_path, {})


def test_no_cluster_and_an_open_one_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"auto needs a cluster.*cluster up.*--address local"):
        where(monkeypatch, tmp_path, {"address": "auto"})
    with pytest.raises(UsageError, match=r"must ask for a token"):
        where(monkeypatch, tmp_path, {}, "127.0.0.1:1")
