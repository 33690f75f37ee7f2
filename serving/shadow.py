"""A version that scores copies of what the champion answered, and never holds an answer up."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .scorer import Scored, Scorer
from .tally import Tallies, outputs_of

if TYPE_CHECKING:
    from .answers import Request
    from .desk import Asked
    from .model import Model
    from .variants import Variants

QUEUE, QUEUE_ROWS = 256, 20_000  # copies, and their rows, that wait in a replica
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
        self._waiting = 0  # rows, as the thread that offers last saw it
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
        if len(self._copies) < QUEUE and self._waiting < QUEUE_ROWS:
            self._waiting += scored.count
            self._copies.append(_Copy(request, scored, read))
            self._came.set()
        else:
            self._tell(lambda tallies: tallies.dropped(self._model.version))

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
        self._waiting = sum(copy.scored.count for copy in list(self._copies))
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
        start, version = time.perf_counter(), self._model.version
        try:
            passed = table()
            answered = self._model.predictor.predict(passed)
        except Exception as error:  # noqa: BLE001 - it is only a shadow's
            self._tell(lambda tallies: tallies.failed_copies(version, len(copies)))
            _log.error("the shadow, version %d: %s", version, type(error).__name__)
            return
        seconds = (time.perf_counter() - start) / len(copies)
        counts = np.array([copy.scored.count for copy in copies])
        starts = np.cumsum(counts) - counts
        theirs = pa.concat_tables([copy.scored.answers for copy in copies])
        agreed = np.logical_and.reduceat(_same(answered, theirs), starts)
        means = {name: np.add.reduceat(answered.column(name).to_numpy(), starts) / counts
                 for name in outputs_of(answered)}
        self._tell(lambda tallies: tallies.scored_copies(
            version, seconds, means, int(agreed.sum())))
        if self._variants.log is not None:
            for copy, at in zip(copies, starts.tolist(), strict=True):
                own = Scored(passed, answered, at, copy.scored.count, version, "shadow")
                self._variants.log(copy.request, own, seconds, self._model.contract)

    def _tell(self, what: Callable[[Tallies], None]) -> None:
        tallies = self._variants.now.tallies
        if tallies is not None:
            what(tallies)


def _same(one: pa.Table, other: pa.Table) -> NDArray[np.bool_]:
    """Whether the predictions are the same, row by row; numbers to four digits."""
    a, b = one.column("prediction"), other.column("prediction")
    same: NDArray[np.bool_]
    if pa.types.is_floating(a.type):
        same = np.isclose(a.to_numpy(), b.to_numpy(), rtol=1e-4, atol=1e-4)
    else:
        same = np.asarray(pc.equal(a, b).to_numpy(), dtype=bool)
    return same
