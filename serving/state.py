"""The state file of a service, `<home>/services/NAME.json`: written by its supervisor."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from .order import Order, write_private

State = Literal["starting", "ready", "stopping", "stopped", "failed", "dead"]
GONE = ("stopped", "failed", "dead")


@dataclass(frozen=True, kw_only=True)
class ServiceStatus:
    """A service as its supervisor last saw it; `dead`: the supervisor was killed."""

    name: str
    version: int
    digest: str
    url: str
    state: State
    pid: int
    created: float  # of the process: tells a reused pid
    folder: str
    since: float
    replicas: int = 0  # that run
    target: int = 0  # that Serve wants
    error: str = ""
    cluster: str = ""  # whose application it is; "": it has a Ray of its own
    timeline: list[tuple[float, int, int]] = field(default_factory=list)  # time, replicas, target

    def but(self, **changes: Any) -> ServiceStatus:
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def alive(self) -> bool:
        return owner(self) is not None


def services(home: Path) -> Path:
    folder = home / "services"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@contextmanager
def held(home: Path, name: str) -> Iterator[None]:
    """No other process starts the service meanwhile; waits for one that does."""
    with (services(home) / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def first(order: Order) -> ServiceStatus:
    """The state before the supervisor has said anything."""
    return ServiceStatus(
        name=order.name, version=order.version, digest=order.digest, url=order.url,
        state="starting", pid=0, created=0.0, folder=order.folder, since=time.time(),
        cluster=order.cluster,
    )


def write(home: Path, status: ServiceStatus) -> None:
    write_private(services(home) / f"{status.name}.json", json.dumps(status.to_dict()))


def forget(home: Path, name: str) -> None:
    (services(home) / f"{name}.json").unlink(missing_ok=True)


def read(home: Path, name: str) -> ServiceStatus | None:
    """The service's state; None: never started, or its file was removed."""
    try:
        data = json.loads((services(home) / f"{name}.json").read_text())
    except FileNotFoundError:
        return None
    status = ServiceStatus(**data)
    return status if status.state in GONE or status.alive else status.but(state="dead")


def owner(status: ServiceStatus) -> psutil.Process | None:
    """The supervisor's process, when it still runs."""
    if status.pid == 0:
        return None
    try:
        process = psutil.Process(status.pid)
        same = abs(process.create_time() - status.created) < 1
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None
