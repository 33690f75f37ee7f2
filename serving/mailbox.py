"""How a command reaches the supervisor of a service: files in the service's private folder."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raymill.errors import Problem, RaymillError, UsageError

from .order import write_private
from .state import ServiceStatus

ASKS = "asks"
_POLL_S = 0.02


@dataclass
class Ask:
    """A command on its way; `said` and `result` come back as it goes on.

    Attributes:
        result: None until it is done. problem: why it was refused; usage: by the user's fault.
    """

    id: str
    verb: str
    actor: str
    data: dict[str, Any]
    said: list[str] = field(default_factory=list)
    result: dict[str, Any] | None = None
    problem: dict[str, str] | None = None
    usage: bool = False


class Mailbox:
    """The supervisor's side."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / ASKS
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def take(self) -> list[Ask]:
        """New commands, oldest first."""
        found = []
        for path in sorted(self._folder.glob("*.ask"), key=lambda path: path.stat().st_mtime_ns):
            found.append(Ask(**json.loads(path.read_text())))
            path.unlink()
        return found

    def say(self, ask: Ask, text: str) -> None:
        ask.said.append(text)
        self._write(ask)

    def done(self, ask: Ask, **result: Any) -> None:
        ask.result = result
        self._write(ask)

    def refuse(self, ask: Ask, error: Exception) -> None:
        problem = error.problems[0] if isinstance(error, RaymillError) else Problem(
            rule=f"{type(error).__name__}: {error}")
        ask.problem, ask.usage = problem.to_dict(), isinstance(error, UsageError)
        self._write(ask)

    def _write(self, ask: Ask) -> None:
        write_private(self._folder / f"{ask.id}.reply", json.dumps(asdict(ask)))


def ask(
    service: ServiceStatus, verb: str, actor: str, limit_s: float,
    on_said: Callable[[str], None], **data: Any,
) -> dict[str, Any]:
    """Ask a service's supervisor; what it answers.

    Raises:
        UsageError, RaymillError: it refuses, or does not answer within `limit_s`.
    """
    folder = Path(service.folder) / ASKS
    one, heard = Ask(uuid.uuid4().hex, verb, actor, data), 0
    write_private(folder / f"{one.id}.ask", json.dumps(asdict(one)))
    reply, end = folder / f"{one.id}.reply", time.monotonic() + limit_s
    while time.monotonic() < end:
        time.sleep(_POLL_S)
        if not reply.exists():
            if not service.alive:
                raise RaymillError(f"the service {service.name} ended meanwhile")
            continue
        one = Ask(**json.loads(reply.read_text()))
        for text in one.said[heard:]:
            on_said(text)
        heard = len(one.said)
        if one.problem is not None:
            raise (UsageError if one.usage else RaymillError)(Problem(**one.problem))
        if one.result is not None:
            reply.unlink(missing_ok=True)
            return one.result
    raise RaymillError(f"{service.name} did not answer within {limit_s:g} s",
                       cure="See raymill serve status.")
