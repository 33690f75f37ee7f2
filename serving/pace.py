"""How a replica has kept its objective of late, in counts that add up over replicas."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from .answers import Answer, Request

WINDOW_S = 5
ASKED, LATE, NEAR = "asked", "late", "near"


class Pace:
    """Counts the predictions of the last seconds that came late; an observer of an endpoint.

    Late is what took longer than the target, was refused for too much load, or was not answered at
    all; near, what took longer than half of it. That the 99th percentile is within the target is
    the same as that at most 1 % are late, and counts, unlike percentiles, add up.

    Args:
        target_ms: of a request in its replica. clock: seconds.
    """

    def __init__(self, target_ms: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._target_s, self._clock = target_ms / 1000, clock
        self._seconds: deque[list[int]] = deque()  # second, asked, late, near; oldest first

    def __call__(self, request: Request | None, answer: Answer, seconds: float) -> None:
        if request is None or not request.version:  # no prediction was asked for
            return
        second = int(self._clock())
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0, 0, 0])
            self._forget(second)
        counts = self._seconds[-1]
        failed = answer.status == 429 or answer.status >= 500
        counts[1] += 1
        counts[2] += failed or seconds > self._target_s
        counts[3] += failed or seconds > self._target_s / 2

    def counts(self) -> dict[str, float]:
        """Of the last seconds, as Serve's autoscaler takes them."""
        self._forget(int(self._clock()))
        sums = [sum(counts[place] for counts in self._seconds) for place in (1, 2, 3)]
        return dict(zip((ASKED, LATE, NEAR), map(float, sums), strict=True))

    def _forget(self, second: int) -> None:
        while self._seconds and self._seconds[0][0] <= second - WINDOW_S:
            self._seconds.popleft()
