"""Finds trials of one worker whose steps have stopped, and ends them.

A trial's process tells an actor that it gets on; the driver looks at what the actor knows. The
workers of a trial of several are watched by the training itself (`training.watchdog`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import ray

from raymill.specs import seconds
from raymill.training.mailbox import Beat
from raymill.training.watchdog import FLOOR_S, look_at, overdue, stack_file
from raymill.training.watchdog import end as end_process

BEAT_S, LOOK_S = 1.0, 1.0
STARTING_S = 15.0  # a step, for what comes before the first: the model is built and compiled
_ANSWER_S = 10.0


class Pulse:
    """Every running trial's last beat, in an actor that lives while trials die."""

    def __init__(self) -> None:
        self._beats: dict[int, tuple[Beat, float]] = {}

    def beat(self, beat: Beat) -> None:
        self._beats[beat.rank] = beat, time.monotonic()

    def rest(self, number: int, pid: int) -> None:
        """A trial's process is not to be watched."""
        beat, _ = self._beats.get(number, (None, 0.0))
        if beat is not None and beat.pid == pid:
            del self._beats[number]

    def beats(self) -> dict[int, tuple[Beat, float]]:
        """Every running trial's last beat with its age in seconds."""
        now = time.monotonic()
        return {number: (beat, now - at) for number, (beat, at) in self._beats.items()}


class Heart:
    """The side of a trial: tells the pulse that it gets on, about once a second."""

    def __init__(self, pulse: Any, number: int) -> None:
        self._pulse, self._number = pulse, number
        self._node = ray.get_runtime_context().get_node_id()
        self._typical_s, self._told = STARTING_S, 0.0

    def alive(self, typical_s: Callable[[], float]) -> None:
        if time.monotonic() - self._told >= BEAT_S:
            self._typical_s, self._told = typical_s(), time.monotonic()
            self.beat()

    def beat(self) -> None:
        """Begin to be watched, or go on."""
        self._pulse.beat.remote(Beat(self._number, os.getpid(), self._node, self._typical_s))

    def rest(self) -> None:
        """Not be watched: the trial waits for the driver, or ends."""
        self._pulse.rest.remote(self._number, os.getpid())


class Hangs:
    """The side of the driver. `limit` is `training.watchdog`, `folder` that of the trials."""

    def __init__(self, pulse: Any, limit: str, folder: Path) -> None:
        self._pulse, self._off = pulse, limit == "off"
        self._floor_s = FLOOR_S if limit in ("auto", "off") else seconds(limit)
        self._folder, self._looked = folder, 0.0
        self._ended: set[int] = set()  # processes, whose last beats may still be known
        self._why: dict[int, str] = {}

    def look(self, live: Collection[int]) -> None:
        """End the processes of `live` trials that hang; call it some times a second."""
        if self._off or time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        try:
            beats = ray.get(self._pulse.beats.remote(), timeout=_ANSWER_S)
        except ray.exceptions.RayError:
            return  # trials that start say so: it holds their rows as well
        late = overdue({n: known for n, known in beats.items() if n in live}, self._floor_s)
        for number, (beat, age) in late.items():
            if beat.pid not in self._ended:
                self._end(number, beat, age)

    def why(self, number: int) -> str:
        """Why the process of a trial that has just failed was ended; empty: it was not."""
        return self._why.pop(number, "")

    def _end(self, number: int, beat: Beat, age: float) -> None:
        seen = look_at(beat, stack_file(self._folder / str(number), 0))
        if not seen.state:
            return  # it died by itself, which Tune sees
        self._ended.add(beat.pid)
        self._why[number] = f"it made no step for {age:.0f} s, {seen.place}: its process was ended"
        end_process(beat)
