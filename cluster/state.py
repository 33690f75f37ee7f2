"""The state file of a cluster of ours on this machine, `<home>/cluster.json`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import psutil

Phase = Literal["starting", "ready", "failed", "dead"]


@dataclass(frozen=True, kw_only=True)
class Node:
    """A raylet: what it gives to the cluster, and the process that holds it."""

    name: str
    cpus: int
    gpus: int
    pid: int = 0
    alive: bool = True


@dataclass(frozen=True, kw_only=True)
class ClusterState:
    """A cluster as its keeper last saw it; `dead`: the keeper was killed.

    `address` is the GCS, `dashboard` the URL of the job API; both are on loopback and ask for the
    token. `mark` is in the environment of every process, `folder` holds their files.
    """

    address: str
    dashboard: str
    pid: int
    created: float  # of the keeper: tells a reused pid
    folder: str
    mark: str
    since: float
    phase: Phase = "starting"
    error: str = ""
    nodes: list[Node] = field(default_factory=list)

    def but(self, **changes: Any) -> ClusterState:
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "created"}

    @property
    def keeper(self) -> psutil.Process | None:
        """The keeper's process; None: it is gone."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < 1
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None


def path_of(home: Path) -> Path:
    return home / "cluster.json"


def write(home: Path, state: ClusterState) -> None:
    """Replace the file in one step; only its owner reads it."""
    path = path_of(home)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(state), file, indent=1)
    new.replace(path)


def read(home: Path) -> ClusterState | None:
    """The cluster of this home; None: there is none."""
    try:
        data = json.loads(path_of(home).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    data["nodes"] = [Node(**node) for node in data["nodes"]]
    state = ClusterState(**data)
    gone = state.phase in ("starting", "ready") and state.keeper is None
    return state.but(phase="dead") if gone else state


def forget(home: Path) -> None:
    path_of(home).unlink(missing_ok=True)
