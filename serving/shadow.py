"""A version that scores copies of what the champion answered, and never holds an answer up."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from .scorer import Scored, Scorer

if TYPE_CHECKING:
    from .answers import Request
    from .desk import Asked
    from .model import Model
    from .variants import Variants

QUEUE = 256  # copies that wait in a replica
_ROWS = 256  # of one pass
_GATHER_S, _IDLE_S = 0.05, 0.002
_log = logging.getLogger("raymill.serving")


@dataclass(frozen=True)
class _Copy:
    """What the champion answered, and how the shadow reads the request by its own contract (None:
    the contract is the same, so the conformed rows are)."""

    request: Request
    scored: Scored
    read: Callable[[], Asked] | None


class Shadow:
    """One thread, and a queue that drops what does not fit: those are counted.

    A shadow has time. It gathers copies and scores many in one pass, which costs a fraction of as
    many passes, and begins one only at a moment when the champion has nothing to do.
    """

    def __init__(self, model: Model, champion: Model, variants: Variants) -> None:
        self._model, self._champion, self._variants = model, champion.batcher, variants
        self._copies: deque[_Copy] = deque()
        self._closed = threading.Event()
        self._came = threading.Event()
        threading.Thread(target=self._run, name="shadow", daemon=True).start()

    @property
    def model(self) -> Model:
        return self._model

    def offer(
        self, request: Request, scored: Scored, read: Callable[[], Asked] | None
    ) -> None:
        """Take a copy, or count it as dropped; takes microseconds."""
        tallies = self._variants.now.tallies
        if len(self._copies) < QUEUE:
            self._copies.append(_Copy(request, scored, read))
            self._came.set()
        elif tallies is not None:
            tallies.dropped(self._model.version)

    def close(self) -> None:
        """No further pass; what waits is let go."""
        self._closed.set()
        self._came.set()

    def _run(self) -> None:
        while not self._closed.is_set():
            self._came.wait()
            self._came.clear()
            while self._copies and not self._closed.wait(_GATHER_S):
                while self._champion.held and not self._closed.wait(_IDLE_S):
                    pass
                self._pass()

    def _pass(self) -> None:
        copies, rows = list[_Copy](), 0
        while self._copies and rows < _ROWS:
            copies.append(self._copies.popleft())
            rows += copies[-1].scored.count
        same = [copy for copy in copies if copy.read is None]
        if same:
            self._score(same, lambda: pa.concat_tables([copy.scored.inputs for copy in same]))
        for copy in copies:
            if copy.read is not None:
                read = copy.read
                self._score([copy], lambda read=read: self._read(read))  # type: ignore[misc]

    def _read(self, read: Callable[[], Asked]) -> pa.Table:
        scorer: Scorer = self._model.scorer
        return scorer.table([read().rows])

    def _score(self, copies: list[_Copy], table: Callable[[], pa.Table]) -> None:
        start, status, answered = time.perf_counter(), 200, None
        try:
            passed = table()
            answered = self._model.predictor.predict(passed)
        except Exception as error:  # noqa: BLE001 - it is only a shadow's
            status = 500
            _log.error("the shadow, version %d: %s", self._model.version, type(error).__name__)
        seconds = (time.perf_counter() - start) / len(copies)
        tallies, version, at = self._variants.now.tallies, self._model.version, 0
        if tallies is None:
            return
        for copy in copies:
            tallies.answer(version, status, seconds)
            if answered is not None:
                own = Scored(passed, answered, at, copy.scored.count, version, "shadow")
                tallies.scores(version, own)
                tallies.copies(version, 1, int(_agree(own, copy.scored)))
                if self._variants.log is not None:
                    self._variants.log(copy.request, own, seconds, self._model.contract)
            at += copy.scored.count


def _agree(one: Scored, other: Scored) -> bool:
    """Whether the predictions are the same; numbers to four digits."""
    a, b = one.answers.column("prediction"), other.answers.column("prediction")
    if not pa.types.is_floating(a.type):
        return bool(a.equals(b)) if a.num_chunks == b.num_chunks else a.to_pylist() == b.to_pylist()
    return all(abs(x - y) <= 1e-4 * max(1.0, abs(y))
               for x, y in zip(a.to_pylist(), b.to_pylist(), strict=True))
