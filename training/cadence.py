"""When all ranks look up from their steps together: to checkpoint within an epoch, or to stop."""

from __future__ import annotations

import time
from collections import deque
from enum import IntEnum
from statistics import median

from raymill.specs import seconds

from .parallel import from_rank_zero
from .session import Session

LOOK_S = 1.0  # about how often the ranks ask rank 0
AUTO_S = 300.0  # how long a long epoch goes on without a checkpoint, unless the spec says so
MOST_STEPS = 10_000


class Order(IntEnum):
    """What every rank does after the step that it has just done."""

    GO_ON = 0
    SAVE = 1
    STOP = 2


class Cadence:
    """Counts the steps and tells what to do after each, the same on every rank.

    Rank 0 decides. It tells how many steps go by until the ranks ask again, about one a second,
    so that asking takes no time that can be measured. `every` is `training.checkpoint_every`.
    """

    def __init__(self, every: int | str, session: Session) -> None:
        self._session = session
        self._every_steps = every if isinstance(every, int) else None
        self._every_s = seconds(every) if isinstance(every, str) and every != "auto" else AUTO_S
        self._durations = deque[float](maxlen=64)
        self._next = 1
        self.restart()

    def restart(self) -> None:
        """An epoch begins: its checkpoint has just been kept."""
        self._saved = self._stepped = self._looked = time.monotonic()
        self._steps = self._unsaved = 0

    def step(self) -> Order:
        """A step is done."""
        now = time.monotonic()
        self._durations.append(now - self._stepped)
        self._stepped = now
        self._steps += 1
        self._unsaved += 1
        self._session.alive(self.typical)
        if self._steps < self._next:
            return Order.GO_ON
        decided = [int(self._decide(now)), self._until_next(now)]
        order, self._next = from_rank_zero(decided, self._session.world_size,
                                           self._session.device)
        self._steps, self._looked = 0, now
        if order == Order.SAVE:
            self._saved, self._unsaved = now, 0
        return Order(order)

    def typical(self) -> float:
        """Seconds of a step: the median of the last ones; 0 before the first."""
        return median(self._durations) if self._durations else 0.0

    def _decide(self, now: float) -> Order:
        if self._session.stopping:
            return Order.STOP
        if self._every_steps is not None:
            return Order.SAVE if self._unsaved >= self._every_steps else Order.GO_ON
        return Order.SAVE if now - self._saved >= self._every_s else Order.GO_ON

    def _until_next(self, now: float) -> int:
        """Steps until the next look; just as many as are left until a checkpoint is due."""
        took = max(now - self._looked, 1e-6) / max(1, self._steps)
        steps = min(MOST_STEPS, 2 * self._next, max(1, int(LOOK_S / took)))
        if self._session.world_size == 1:
            steps = 1
        if self._every_steps is not None:
            unsaved = self._unsaved % self._every_steps
            steps = min(steps, self._every_steps - unsaved)
        return steps
