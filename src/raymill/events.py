"""What long work tells its caller. Rooms send events; the terminal, the journal and MLflow read."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal[
    "stage",  # name, status: started | finished | skipped | failed, seconds, detail
    "progress",  # stage, done, total (None when unknown), unit; of a search that goes on: leaders
    "epoch",  # trial (number or None), epoch, epochs, metrics: dict[str, float], rows_per_s
    "trial",  # number, state: running | complete | pruned | failed, value, params, epoch, cause
    "place",  # trial or rank, gpus: Ray's ids, device: torch's; trials also began, ended
    "note",  # text
    "warning",  # text
]


@dataclass(frozen=True)
class Event:
    """One event; `data` holds the fields named beside its kind and is JSON-serialisable."""

    kind: Kind
    data: dict[str, Any]
    time: float = field(default_factory=time.time)


Notify = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The `Notify` of a caller that does not listen."""


def note(notify: Notify, text: str) -> None:
    notify(Event("note", {"text": text}))


def warn(notify: Notify, text: str) -> None:
    notify(Event("warning", {"text": text}))
