"""What each version's answers add up to: the figures by which a rollout is judged."""

from __future__ import annotations

import bisect
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .order import write_private
from .plan import STATS
from .sequential import Moments, upper_edge

if TYPE_CHECKING:
    from .scorer import Scored

EDGES = tuple(0.0005 * 1.25**i for i in range(46))  # 0.5 ms to 11 s
FAILED = 422
"""The status of rows that a contract refuses; with 5xx, what counts as a failure. Other refusals
are the client's or the queue's, whichever model was chosen."""


@dataclass
class Tally:
    """Of one version.

    Attributes:
        slow: answers by their seconds, in `EDGES`. sums, squares: of each output's mean over a
            request's rows, and of that squared; `scored` requests have them.
        copies, agreed: a shadow's, and how many predicted the same; dropped: copies not scored.
    """

    requests: int = 0
    failed: int = 0
    slow: list[int] = field(default_factory=lambda: [0] * (len(EDGES) + 1))
    scored: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    squares: dict[str, float] = field(default_factory=dict)
    copies: int = 0
    agreed: int = 0
    dropped: int = 0

    def answer(self, status: int, seconds: float) -> None:
        self.requests += 1
        if status >= 500 or status == FAILED:
            self.failed += 1
        elif status < 300:
            self.slow[bisect.bisect_left(EDGES, seconds)] += 1

    def scores(self, means: Mapping[str, float]) -> None:
        self.scored += 1
        for name, mean in means.items():
            self.sums[name] = self.sums.get(name, 0.0) + mean
            self.squares[name] = self.squares.get(name, 0.0) + mean * mean

    def add(self, other: Tally) -> None:
        for name in ("requests", "failed", "scored", "copies", "agreed", "dropped"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.slow = [a + b for a, b in zip(self.slow, other.slow, strict=True)]
        for own, more in ((self.sums, other.sums), (self.squares, other.squares)):
            for name, value in more.items():
                own[name] = own.get(name, 0.0) + value

    @property
    def failures(self) -> Moments:
        return Moments.of_share(self.requests, self.failed)

    def slower_than(self, edge: float) -> Moments:
        """The share of answers that took longer."""
        at = bisect.bisect_left(EDGES, edge) + 1
        return Moments.of_share(sum(self.slow), sum(self.slow[at:]))

    def output(self, name: str) -> Moments:
        return Moments.of_sums(self.scored, self.sums.get(name, 0.0), self.squares.get(name, 0.0))


class Tallies:
    """Those of one replica under one plan; counted in any thread, written by one."""

    def __init__(self, plan: int) -> None:
        self.plan = plan
        self._lock = threading.Lock()
        self._of: dict[int, Tally] = {}
        self._written: str = ""

    def answer(self, version: int, status: int, seconds: float) -> None:
        with self._lock:
            self._of.setdefault(version, Tally()).answer(status, seconds)

    def scores(self, version: int, scored: Scored) -> None:
        means = output_means(scored)
        with self._lock:
            self._of.setdefault(version, Tally()).scores(means)

    def scored_copies(
        self, version: int, seconds: float, means: Mapping[str, NDArray[np.float64]], agreed: int
    ) -> None:
        """Copies that a shadow scored in one pass, each in `seconds`: `means` of each output."""
        count = len(next(iter(means.values())))
        with self._lock:
            tally = self._of.setdefault(version, Tally())
            tally.requests += count
            tally.copies += count
            tally.agreed += agreed
            tally.scored += count
            tally.slow[bisect.bisect_left(EDGES, seconds)] += count
            for name, values in means.items():
                tally.sums[name] = tally.sums.get(name, 0.0) + float(values.sum())
                tally.squares[name] = tally.squares.get(name, 0.0) + float((values**2).sum())

    def failed_copies(self, version: int, count: int) -> None:
        with self._lock:
            tally = self._of.setdefault(version, Tally())
            tally.requests += count
            tally.copies += count
            tally.failed += count

    def dropped(self, version: int) -> None:
        with self._lock:
            self._of.setdefault(version, Tally()).dropped += 1

    def write(self, folder: Path) -> None:
        """Into the replica's own file, when something has changed."""
        with self._lock:
            text = json.dumps({"plan": self.plan, "of": {v: asdict(t) for v, t in self._of.items()}})
        if text != self._written:
            write_private(folder / STATS / f"{os.getpid()}.json", text)
            self._written = text


def output_means(scored: Scored) -> dict[str, float]:
    """The mean over the rows of a number, or of each class's probability (of the positive class
    alone where there are two)."""
    return {name: float(np.mean(scored.answers.column(name).to_numpy()))
            for name in outputs_of(scored.answers)}


def outputs_of(answers: pa.Table) -> list[str]:
    """The columns that are compared."""
    columns: list[str] = answers.column_names
    names = columns if len(columns) == 1 else columns[1:]
    return names[1:] if len(names) == 2 else names


def together(folder: Path, plan: int) -> dict[int, Tally]:
    """The sums of all replicas under a plan, also of those that have died meanwhile."""
    found: dict[int, Tally] = {}
    for path in (folder / STATS).glob("[0-9]*.json"):
        data: dict[str, Any] = json.loads(path.read_text())
        if data["plan"] != plan:
            continue
        for version, tally in data["of"].items():
            found.setdefault(int(version), Tally()).add(Tally(**tally))
    return found


def quantile_ms(counts: Sequence[int], q: float) -> float:
    """A latency that a share `q` of the answers does not exceed, for people; NaN without any."""
    return 1000 * upper_edge(counts, EDGES, q) if sum(counts) else float("nan")
