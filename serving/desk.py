"""Takes the requests of every protocol to the batcher, within the limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raymill.errors import DataError

from .answers import Answer, Handler, Headers, Request
from .batcher import Overloaded
from .bodies import check_headers, read_body
from .metrics import Metrics
from .problems import HttpProblem, from_data_error, overloaded
from .scorer import Rows, Scored
from .spec import ServingSpec

if TYPE_CHECKING:
    from raymill.data.contract import Contract

    from .model import Model
    from .variants import Routing, Variants

_STUCK = 3  # a forward pass that takes this many deadlines will not end


@dataclass(frozen=True)
class Asked:
    """A request, read: its rows, and how their answers are written."""

    rows: Rows
    count: int
    write: Callable[[Scored], Answer]
    column: Callable[[str], Sequence[Any] | None]  # a column's values, also one that is ignored


Read = Callable[[bytes, Request], Asked]
"""A body to what it asks; raises `HttpProblem` for what its protocol refuses."""
Log = Callable[[Request, Scored, float, "Contract"], None]
"""Told of each answer that is about to leave, of the seconds it took, and whose contract it kept."""
Kinds = Mapping[bytes, "Callable[[Model], Read]"]
"""Content types, and how a model reads each."""


class Desk:
    """Admission, deadline, caps and counts of every scored request, whatever its protocol."""

    def __init__(
        self, variants: Variants, metrics: Metrics, limits: ServingSpec, log: Log
    ) -> None:
        self.variants, self._metrics, self.log = variants, metrics, log
        self._deadline_s = limits.deadline_ms / 1000
        self.max_bytes = int(limits.max_body_mb * 2**20)
        self.max_rows = limits.max_rows

    @property
    def stuck(self) -> bool:
        return self.variants.now.champion.batcher.busy_s > _STUCK * self._deadline_s

    def handler(self, kinds: Kinds) -> Handler:
        """A handler of bodies of these content types. A request that has a version already is
        answered by that one, and is no part of a rollout's comparison."""

        async def handle(request: Request) -> Answer:
            routing = self.variants.now
            pinned = request.version != 0
            model = _pinned(routing, request.version) if pinned else (
                routing.champion if routing.alone else routing.choose(request))
            request.version, request.variant = model.version, model.variant
            headers: Headers = request.scope["headers"]
            reader = kinds[check_headers(headers, kinds, self.max_bytes)]
            if model.batcher.full:
                raise overloaded()

            start = time.perf_counter()

            async def work() -> Answer:
                body, by = await read_body(request.receive, self.max_bytes), model
                asked = reader(by)(body, request)
                if routing.column and not pinned:
                    by = routing.by_values(asked.column(routing.column))
                    request.version, request.variant = by.version, by.variant
                    if by.contract.version != model.contract.version:
                        asked = reader(by)(body, request)
                scored = await self._submit(by, asked)
                answer = asked.write(scored)
                self.log(request, scored, time.perf_counter() - start, by.contract)
                if routing.tallies is not None and not pinned:
                    routing.tallies.scores(by.version, scored)
                if routing.shadow is not None and not pinned:
                    read = _reread(routing, reader, body, request)
                    routing.shadow.offer(request, scored, read)
                return answer

            if routing.tallies is None or pinned:
                return await self._within(work, request)
            return await self._counted(work, request)

        return handle

    async def _counted(self, work: Callable[[], Awaitable[Answer]], request: Request) -> Answer:
        """`_within`, told to the rollout's comparison."""
        start, status = time.perf_counter(), 500
        try:
            answer = await self._within(work, request)
            status = answer.status
            return answer
        except HttpProblem as problem:
            status = problem.status
            raise
        except asyncio.CancelledError:
            status = 0  # the client hung up
            raise
        finally:
            if status:
                self.variants.count(request.version, status, time.perf_counter() - start)

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

    async def _submit(self, model: Model, asked: Asked) -> Scored:
        if not 1 <= asked.count <= self.max_rows:
            detail = f"A request has 1 to {self.max_rows} rows, but this one has {asked.count}."
            raise HttpProblem(422, detail)
        try:
            return await model.batcher.submit(asked.rows, asked.count)
        except Overloaded:
            raise overloaded() from None
        except DataError as error:
            raise from_data_error(error) from None


def _pinned(routing: Routing, version: int) -> Model:
    model = routing.models.get(version)
    if model is None:
        raise HttpProblem(404, f"Version {version} is not loaded any more.")
    return model


def _reread(
    routing: Routing, reader: Callable[[Model], Read], body: bytes, request: Request
) -> Callable[[], Asked] | None:
    """How the shadow reads a request by its own contract; None where that is the champion's."""
    assert routing.shadow is not None
    model = routing.shadow.model
    if model.contract.version == routing.champion.contract.version:
        return None
    return lambda: reader(model)(body, request)
