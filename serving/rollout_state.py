"""What is known of a model's last rollout, `<home>/services/rollouts/NAME.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from .order import write_private
from .state import read, services

State = Literal["preparing", "running", "paused", "completed", "rolled back", "aborted", "refused"]
ENDED = ("completed", "rolled back", "aborted", "refused", "ended with its service")


@dataclass(frozen=True, kw_only=True)
class RolloutStatus:
    """A rollout as the supervisor last saw it.

    Attributes:
        share: of the requests that go to `version`. why: what it waits for, or why it ended.
        findings: the comparisons of this step. counts: by version, of this step.
        labels: whether true labels have come back for both versions.
    """

    name: str
    mode: str
    version: int
    champion: int
    state: str
    began: float
    share: float = 0.0
    steps: tuple[float, ...] = ()
    bake_s: float = 0.0
    key: str = ""
    why: str = ""
    ended: float | None = None
    findings: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    labels: bool = False

    def but(self, **changes: Any) -> RolloutStatus:
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _path(home: Path, name: str) -> Path:
    folder = services(home) / "rollouts"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"{name}.json"


def write_rollout(home: Path, status: RolloutStatus) -> None:
    write_private(_path(home, status.name), json.dumps(status.to_dict()))


def read_rollout(home: Path, name: str) -> RolloutStatus | None:
    """The model's last rollout; None: there was none."""
    try:
        data = json.loads(_path(home, name).read_text())
    except FileNotFoundError:
        return None
    status = RolloutStatus(**data)
    service = read(home, name)
    if status.state not in ENDED and (service is None or service.state not in ("ready", "starting")):
        return status.but(state="ended with its service")
    return status


def rollouts(home: Path) -> list[RolloutStatus]:
    """Those of every model."""
    names = sorted(path.stem for path in (services(home) / "rollouts").glob("[!.]*.json"))
    return [status for name in names if (status := read_rollout(home, name)) is not None]
