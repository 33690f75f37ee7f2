"""What workers and driver tell each other while a run goes on."""

from __future__ import annotations

import time
from dataclasses import dataclass

from raymill.errors import RaymillError
from raymill.events import Event


@dataclass(frozen=True)
class Beat:
    """A worker got on. `typical_s` is the median time of its steps, `node` where its process is."""

    rank: int
    pid: int
    node: str
    typical_s: float


@dataclass(frozen=True)
class Letters:
    """What came since the last look: events, and every worker's last beat with its age in
    seconds."""

    events: list[Event]
    beats: dict[int, tuple[Beat, float]]


class Mailbox:
    """An actor of its own: it lives while workers die."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._beats: dict[int, tuple[Beat, float]] = {}
        self._cause: RaymillError | None = None
        self._stop = False

    def send(self, event: Event) -> None:
        self._events.append(event)

    def beat(self, beat: Beat) -> bool:
        """Take down that a worker got on; whether the run was asked to stop."""
        self._beats[beat.rank] = beat, time.monotonic()
        return self._stop

    def rest(self) -> None:
        """No worker is expected to get on: a group begins or ends."""
        self._beats.clear()

    def lost(self, causes: str) -> None:
        """Workers were lost; the driver warns of it, unless that ends the run."""
        if self._cause is not None:
            return
        self._events.append(Event("warning", {"text": f"lost workers ({causes}); those left are "
                                              "stopped, and the group starts again"}))

    def stop(self) -> None:
        """Ask the workers to stop."""
        self._stop = True

    def fetch(self) -> Letters:
        events, self._events = self._events, []
        now = time.monotonic()
        return Letters(events, {rank: (beat, now - at) for rank, (beat, at) in self._beats.items()})

    def fail(self, cause: RaymillError) -> None:
        self._cause = self._cause or cause

    def cause(self) -> RaymillError | None:
        return self._cause
