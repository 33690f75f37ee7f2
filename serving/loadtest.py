"""Open-loop load on an endpoint: the highest rate at which a latency objective still holds.

Requests are sent at moments drawn beforehand (a Poisson process), whether earlier ones were answered
or not, and each latency counts from the moment its request was due. A closed loop, whose clients wait
for answers, sends less when the endpoint is slow and so hides what users would see ("coordinated
omission", G. Tene, "How NOT to Measure Latency", 2015).
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp

from raymill.errors import Problem, RaymillError, UsageError

QUANTILES = (0.5, 0.95, 0.99, 0.999)
_OBJECTIVE = re.compile(r"p(50|95|99|99\.9)\s*=\s*([0-9]+(?:\.[0-9]+)?)\s*ms")
_MOST_WAITING = 10_000  # requests on their way at once: beyond, a request counts as failed
_GROWTH, _CLOSE = 1.6, 1.1  # rates tried upwards; bounds this near to each other are enough
_LATE_SHARE = 0.2  # of the objective: a generator later than this measures itself
_SHED = (429, 503)
_STATUS_OF_A_BREAK = 0  # no answer: the connection broke or the deadline passed


@dataclass(frozen=True)
class Slo:
    """A quantile of the latency, and what it must not exceed in ms."""

    quantile: float
    ms: float

    @classmethod
    def parse(cls, text: str) -> Slo:
        """From `p99=50ms`.

        Raises:
            UsageError: it is written otherwise.
        """
        match = _OBJECTIVE.fullmatch(text.strip())
        if match is None or float(match[2]) <= 0:
            raise UsageError(Problem(rule="an objective is p50, p95, p99 or p99.9 and milliseconds",
                                     got=repr(text), cure="Write it like p99=50ms."))
        return cls(round(float(match[1]) / 100, 6), float(match[2]))

    def __str__(self) -> str:
        return f"p{self.quantile * 100:g} <= {self.ms:g} ms"


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one offered rate came to. Latencies in ms, of the answered requests, from when each was
    due; `late_ms` is how late the generator itself sent (its p99)."""

    offered: float  # requests a second
    answered: float  # requests a second with status 200
    sent: int
    shed: int  # 429 and 503: the endpoint said that it is full
    failed: int  # every other status, broken connections, no answer in time
    quantiles: dict[str, float]
    late_ms: float
    holds: bool
    why: str = ""  # it does not hold

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class LoadResult:
    """The steps in their order, and the best one that held and was confirmed (None: none did)."""

    url: str
    slo: str
    model: str
    version: int | None
    steps: list[Step] = field(default_factory=list)
    best: Step | None = None
    limited_by: str = "the endpoint"

    @property
    def rate(self) -> float:
        """Requests a second within the objective."""
        return self.best.offered if self.best is not None else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "rate": self.rate}


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """`seconds` a step, `start` and `most` as requests a second, `timeout_s` for each request.
    `headers` may hold an API key; they are never told."""

    seconds: float = 5.0
    start: float = 20.0
    most: float = 20_000.0
    timeout_s: float = 10.0
    seed: int = 0
    headers: dict[str, str] = field(default_factory=dict, repr=False)


def loadtest(
    url: str, bodies: Sequence[bytes], slo: Slo, options: LoadOptions | None = None,
    told: Callable[[Step], None] = lambda step: None,
) -> LoadResult:
    """Offer growing rates to `url`/predict until `slo` breaks, close in, and confirm the best.

    Args:
        bodies: JSON requests, sent in turn. told: hears each step when it is over.

    Raises:
        RaymillError: the endpoint does not answer, or refuses the requests themselves.
    """
    return asyncio.run(_loadtest(url.rstrip("/"), bodies, slo, options or LoadOptions(), told))


async def _loadtest(
    url: str, bodies: Sequence[bytes], slo: Slo, options: LoadOptions,
    told: Callable[[Step], None],
) -> LoadResult:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
    timeout = aiohttp.ClientTimeout(total=options.timeout_s)
    headers = {"content-type": "application/json", **options.headers}
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, headers=headers, auto_decompress=False
    ) as session:
        first = await _first(session, url, bodies[0])
        steps: list[Step] = []

        async def step(rate: float, seconds: float) -> Step:
            done = await _step(session, url, bodies, rate, seconds, slo, options)
            steps.append(done)
            told(done)
            return done

        low, high, limit = await _bracket(step, options)
        while low is not None and high is not None and high / low.offered > _CLOSE:
            middle = await step((low.offered * high) ** 0.5, options.seconds)
            low, high = (middle, high) if middle.holds else (low, middle.offered)
        best = await _confirmed(step, low, options)
    return LoadResult(url=url, slo=str(slo), model=str(first.get("model", "")),
                      version=first.get("version"), steps=steps, best=best, limited_by=limit)


Try = Callable[[float, float], Any]


async def _bracket(step: Try, options: LoadOptions) -> tuple[Step | None, float | None, str]:
    """The last rate that held, the first that did not (None: none), and what set the limit."""
    low: Step | None = None
    rate = options.start
    while rate <= options.most:
        tried: Step = await step(rate, options.seconds)
        if not tried.holds:
            return low, rate, "the load generator" if _late(tried.why) else "the endpoint"
        low, rate = tried, rate * _GROWTH
    return low, None, "the highest rate that was allowed"


async def _confirmed(step: Try, found: Step | None, options: LoadOptions) -> Step | None:
    """A step twice as long at the rate found, or at a tenth less each time that breaks."""
    if found is None:
        return None
    rate = found.offered
    for _ in range(4):
        again: Step = await step(rate, 2 * options.seconds)
        if again.holds:
            return again
        rate *= 0.9
    return None


async def _first(session: aiohttp.ClientSession, url: str, body: bytes) -> dict[str, Any]:
    """One answer, to see that the requests are good before they are many."""
    try:
        async with session.post(f"{url}/predict", data=body) as answer:
            document: dict[str, Any] = await answer.json(content_type=None)
            if answer.status != 200:
                raise RaymillError(Problem(
                    rule="the endpoint must answer the request that is sent many times",
                    got=f"{answer.status}: {document.get('detail', '')}", where=url,
                    cure="Give good rows with --input, and a key with --key-env where one is due."))
            return document
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise RaymillError(Problem(rule="the endpoint must answer", where=url,
                                   got=str(error) or type(error).__name__,
                                   cure="See `raymill serve status`.")) from None


async def _step(
    session: aiohttp.ClientSession, url: str, bodies: Sequence[bytes], rate: float,
    seconds: float, slo: Slo, options: LoadOptions,
) -> Step:
    draw = random.Random(f"{options.seed} {rate}")
    due: list[float] = []
    at = draw.expovariate(rate)
    while at < seconds:
        due.append(at)
        at += draw.expovariate(rate)
    statuses: list[int] = []
    latencies: list[float] = []
    late: list[float] = []
    waiting: set[asyncio.Task[None]] = set()
    began = time.perf_counter()

    async def ask(body: bytes, moment: float) -> None:
        try:
            async with session.post(f"{url}/predict", data=body) as answer:
                await answer.read()
                status = answer.status
        except (aiohttp.ClientError, TimeoutError):
            status = _STATUS_OF_A_BREAK
        statuses.append(status)
        if status == 200:
            latencies.append(time.perf_counter() - began - moment)

    for number, moment in enumerate(due):
        ahead = moment - (time.perf_counter() - began)
        if ahead > 0:
            await asyncio.sleep(ahead)
        elif number % 64 == 0:
            await asyncio.sleep(0)  # behind: answers must be read all the same
        late.append(max(0.0, time.perf_counter() - began - moment))
        if len(waiting) >= _MOST_WAITING:
            statuses.append(_STATUS_OF_A_BREAK)
            continue
        task = asyncio.create_task(ask(bodies[number % len(bodies)], moment))
        waiting.add(task)
        task.add_done_callback(waiting.discard)
    if waiting:
        await asyncio.wait(waiting)
    return _judged(rate, seconds, statuses, latencies, late, slo)


def _judged(
    rate: float, seconds: float, statuses: Sequence[int], latencies: Sequence[float],
    late: Sequence[float], slo: Slo,
) -> Step:
    ms = sorted(1000 * latency for latency in latencies)
    quantiles = {f"p{q * 100:g}": quantile(ms, q) for q in QUANTILES}
    shed = sum(status in _SHED for status in statuses)
    failed = len(statuses) - shed - len(ms)
    late_ms = quantile(sorted(1000 * each for each in late), 0.99)
    value = quantile(ms, slo.quantile)
    why = ""
    if failed:
        why = f"{failed} of {len(statuses)} failed"
    elif shed:
        why = f"{shed} of {len(statuses)} were shed"
    elif late_ms > max(_LATE_SHARE * slo.ms, 2.0):
        why = f"the generator was {late_ms:.1f} ms late (p99)"
    elif ms and value > slo.ms:
        why = f"p{slo.quantile * 100:g} was {value:.1f} ms"
    elif not ms:
        why = "nothing was sent: the step is too short for this rate"
    return Step(offered=rate, answered=len(ms) / seconds, sent=len(statuses), shed=shed,
                failed=failed, quantiles=quantiles, late_ms=late_ms, holds=not why, why=why)


def _late(why: str) -> bool:
    return why.startswith("the generator")


def quantile(ordered: Sequence[float], q: float) -> float:
    """The smallest value that a share `q` of the ordered values does not exceed; 0 of none."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * round(q * 1000) // 1000) - 1))]
