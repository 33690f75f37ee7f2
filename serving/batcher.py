"""Joins the requests that are waiting into one forward pass; waits for no timer."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from raymill.errors import DataError

Row = dict[str, Any]
Score = Callable[[Sequence[Row]], list[Row]]
"""Rows to one answer a row, in their order; raises DataError for rows that break the contract."""


class Overloaded(Exception):
    """As many requests wait as may; the caller should come back later."""


@dataclass(eq=False)
class _Waiting:
    rows: list[Row]
    answer: asyncio.Future[list[Row]]


class Batcher:
    """Runs `score` in one thread, each time on all that came in while it was busy.

    A lone request starts at once; under load a pass takes up to `max_rows` rows of whole
    requests (a request that is larger goes alone). Requests whose caller gave up are left out.

    Belongs to one event loop; `close()` ends its thread.
    """

    def __init__(
        self,
        score: Score,
        *,
        max_rows: int,
        max_waiting: int,
        on_batch: Callable[[int, int], None] = lambda requests, rows: None,
    ) -> None:
        self._score, self._max_rows, self._max_waiting = score, max_rows, max_waiting
        self._on_batch = on_batch
        self._queue: deque[_Waiting] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="score")
        self._busy_since: float | None = None
        self._held = 0

    @property
    def held(self) -> int:
        """Requests that wait or are being scored."""
        return self._held

    @property
    def full(self) -> bool:
        return self._held >= self._max_waiting

    @property
    def busy_s(self) -> float:
        """How long the pass that is under way has taken; 0 when idle."""
        return 0.0 if self._busy_since is None else time.monotonic() - self._busy_since

    async def submit(self, rows: list[Row]) -> list[Row]:
        """One answer for each of `rows`.

        Raises:
            Overloaded: `max_waiting` requests are held already.
            DataError: a row breaks the contract; other requests of the batch don't notice.
        """
        if self.full:
            raise Overloaded
        waiting = _Waiting(rows, asyncio.get_running_loop().create_future())
        self._held += 1
        try:
            self._queue.append(waiting)
            if self._busy_since is None:
                self._start_pass()
            return await waiting.answer
        finally:
            self._held -= 1

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _start_pass(self) -> None:
        batch = self._take()
        if not batch:
            self._busy_since = None
            return
        self._busy_since = time.monotonic()
        self._on_batch(len(batch), sum(len(waiting.rows) for waiting in batch))
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._thread, self._run, [w.rows for w in batch])
        future.add_done_callback(lambda done: self._finish(batch, done))

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        rows = 0
        while self._queue:
            waiting = self._queue[0]
            if not waiting.answer.done():
                rows += len(waiting.rows)
                if batch and rows > self._max_rows:
                    break
                batch.append(waiting)
            self._queue.popleft()
        return batch

    def _run(self, requests: list[list[Row]]) -> list[list[Row] | Exception]:
        """In the thread: one pass over all; when a row of it is bad, each request by itself."""
        if len(requests) == 1:
            return [self._attempt(requests[0])]
        try:
            answers = self._score([row for rows in requests for row in rows])
        except DataError:
            return [self._attempt(rows) for rows in requests]
        split: list[list[Row] | Exception] = []
        start = 0
        for rows in requests:
            split.append(answers[start : start + len(rows)])
            start += len(rows)
        return split

    def _attempt(self, rows: list[Row]) -> list[Row] | Exception:
        try:
            return self._score(rows)
        except Exception as error:  # noqa: BLE001 - the request's own, raised there
            return error

    def _finish(
        self, batch: list[_Waiting], done: asyncio.Future[list[list[Row] | Exception]]
    ) -> None:
        error = None if done.cancelled() else done.exception()
        results = [error] * len(batch) if error or done.cancelled() else done.result()
        for waiting, result in zip(batch, results, strict=True):
            if waiting.answer.done():
                continue
            if isinstance(result, list):
                waiting.answer.set_result(result)
            else:
                waiting.answer.set_exception(result or RuntimeError("the endpoint was closed"))
        self._start_pass()
