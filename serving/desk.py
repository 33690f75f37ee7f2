"""Takes the requests of every protocol to the batcher, within the limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from raymill.errors import DataError

from .answers import Answer, Handler, Headers, Request
from .batcher import Batcher, Overloaded
from .bodies import check_headers, read_body
from .metrics import Metrics
from .problems import HttpProblem, from_data_error, overloaded
from .scorer import Rows, Scored, Scorer
from .spec import ServingSpec

_STUCK = 3  # a forward pass that takes this many deadlines will not end


@dataclass(frozen=True)
class Asked:
    """A request, read: its rows, and how their answers are written."""

    rows: Rows
    count: int
    write: Callable[[Scored], Answer]


Read = Callable[[bytes, Request], Asked]
"""A body to what it asks; raises `HttpProblem` for what its protocol refuses."""
Log = Callable[[Request, Scored, float], None]
"""Told of each answer that is about to leave, and of the seconds it took."""


class Desk:
    """Admission, deadline, caps and counts of every scored request, whatever its protocol."""

    def __init__(
        self, scorer: Scorer, batcher: Batcher[Rows, Scored], metrics: Metrics,
        limits: ServingSpec, log: Log,
    ) -> None:
        self._log = log
        self._scorer, self._batcher, self._metrics = scorer, batcher, metrics
        self._deadline_s = limits.deadline_ms / 1000
        self.max_bytes = int(limits.max_body_mb * 2**20)
        self.max_rows = limits.max_rows

    @property
    def stuck(self) -> bool:
        return self._batcher.busy_s > _STUCK * self._deadline_s

    def handler(self, kinds: Mapping[bytes, Read]) -> Handler:
        """A handler of bodies of these content types."""

        async def handle(request: Request) -> Answer:
            request.version, request.variant = self._scorer.version, self._scorer.variant
            headers: Headers = request.scope["headers"]
            read = kinds[check_headers(headers, kinds, self.max_bytes)]
            if self._batcher.full:
                raise overloaded()

            start = time.perf_counter()

            async def work() -> Answer:
                asked = read(await read_body(request.receive, self.max_bytes), request)
                scored = await self._submit(asked.rows, asked.count)
                answer = asked.write(scored)
                self._log(request, scored, time.perf_counter() - start)
                return answer

            return await self._within(work, request)

        return handle

    async def _within(self, work: Callable[[], Awaitable[Answer]], request: Request) -> Answer:
        """What `work` gives, if it does by the deadline; counted and timed.

        Raises:
            HttpProblem: 504.
        """
        start = time.perf_counter()
        self._metrics.held.inc()
        try:
            async with asyncio.timeout(self._deadline_s) as deadline:
                result = await work()
        except TimeoutError:
            if not deadline.expired():
                raise
            detail = f"No answer within the deadline of {self._deadline_s:g} s."
            raise HttpProblem(504, detail) from None
        finally:
            self._metrics.held.dec()
        self._metrics.seconds.labels(str(request.version), request.variant).observe(
            time.perf_counter() - start)
        return result

    async def _submit(self, rows: Rows, count: int) -> Scored:
        if not 1 <= count <= self.max_rows:
            detail = f"A request has 1 to {self.max_rows} rows, but this one has {count}."
            raise HttpProblem(422, detail)
        try:
            return await self._batcher.submit(rows, count)
        except Overloaded:
            raise overloaded() from None
        except DataError as error:
            raise from_data_error(error) from None
