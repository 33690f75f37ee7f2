"""Joins the requests that are waiting into one forward pass; waits for no timer."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from raymill.errors import DataError

Rows = TypeVar("Rows")
Scored = TypeVar("Scored")


class Overloaded(Exception):
    """As many requests wait as may; the caller should come back later."""


@dataclass(eq=False)
class _Waiting(Generic[Rows, Scored]):
    rows: Rows
    count: int
    answer: asyncio.Future[Scored]


class Batcher(Generic[Rows, Scored]):
    """Runs `score` in one thread, each time on all that came in while it was busy.

    `score` takes the rows of several requests and gives one answer for each, in their order; it
    raises DataError when a row of any breaks the contract, and is then asked for each alone.

    A lone request starts at once; under load a pass takes up to `max_rows` rows of whole
    requests (a request that is larger goes alone). Requests whose caller gave up are left out.

    At most `max_waiting` requests are held, or `share` times as many: 1, or more while other
    replicas are missing whose requests come here.

    Belongs to one event loop; `close()` ends its thread.
    """

    def __init__(
        self,
        score: Callable[[Sequence[Rows]], Sequence[Scored]],
        *,
        max_rows: int,
        max_waiting: int,
        on_batch: Callable[[int, int], None] = lambda requests, rows: None,
    ) -> None:
        self._score, self._max_rows, self._max_waiting = score, max_rows, max_waiting
        self._on_batch = on_batch
        self._queue: deque[_Waiting[Rows, Scored]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="score")
        self._busy_since: float | None = None
        self._held = 0
        self.share = 1.0

    @property
    def held(self) -> int:
        """Requests that wait or are being scored."""
        return self._held

    @property
    def full(self) -> bool:
        return self._held >= self._max_waiting * self.share

    @property
    def busy_s(self) -> float:
        """How long the pass that is under way has taken; 0 when idle."""
        return 0.0 if self._busy_since is None else time.monotonic() - self._busy_since

    async def submit(self, rows: Rows, count: int) -> Scored:
        """What `score` says of `rows`, which are `count` of them.

        Raises:
            Overloaded: as many requests are held already as may be.
            DataError: a row breaks the contract; other requests of the batch don't notice.
        """
        if self.full:
            raise Overloaded
        answer: asyncio.Future[Scored] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(rows, count, answer)
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
        self._on_batch(len(batch), sum(waiting.count for waiting in batch))
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._thread, self._run, [w.rows for w in batch])
        future.add_done_callback(lambda done: self._finish(batch, done))

    def _take(self) -> list[_Waiting[Rows, Scored]]:
        batch: list[_Waiting[Rows, Scored]] = []
        rows = 0
        while self._queue:
            waiting = self._queue[0]
            if not waiting.answer.done():
                rows += waiting.count
                if batch and rows > self._max_rows:
                    break
                batch.append(waiting)
            self._queue.popleft()
        return batch

    def _run(self, requests: list[Rows]) -> list[Scored | Exception]:
        """In the thread: one pass over all; when a row of it is bad, each request by itself."""
        if len(requests) == 1:
            return [self._attempt(requests[0])]
        try:
            return list(self._score(requests))
        except DataError:
            return [self._attempt(rows) for rows in requests]

    def _attempt(self, rows: Rows) -> Scored | Exception:
        try:
            return self._score([rows])[0]
        except Exception as error:  # noqa: BLE001 - the request's own, raised there
            return error

    def _finish(
        self,
        batch: list[_Waiting[Rows, Scored]],
        done: asyncio.Future[list[Scored | Exception]],
    ) -> None:
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or error is not None:
            cause = error or RuntimeError("the endpoint was closed")
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(cause)
        else:
            for waiting, result in zip(batch, done.result(), strict=True):
                if waiting.answer.done():
                    continue
                if isinstance(result, Exception):
                    waiting.answer.set_exception(result)
                else:
                    waiting.answer.set_result(result)
        self._start_pass()
