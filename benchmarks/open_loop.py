"""An open-loop load: requests leave at their own times, whether or not others were answered.

Latency counts from the time a request was due, so a server that stalls is charged for all that
had to wait (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

GIVE_UP_S, _FRESH_S = 30.0, 20.0
_NAMED = 10  # lost requests that are told of one by one


@dataclass
class Open:
    """What became of each request: when it was due (s from the start), its seconds, its status
    (0: the connection broke or nothing came within 30 s), why it was not answered 200, and how many
    seconds after its time it left: a client short of CPUs sends in bursts, which a queue refuses."""

    due: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)
    began: float = 0.0

    def mark(self, phase: str) -> None:
        """What is done to the server from now on."""
        self.marks.append((time.perf_counter() - self.began, phase))

    def lost(self, *fine: int) -> dict[str, Any]:
        """How many requests were not answered `fine` (200), why, and in which phase."""
        fine = fine or (200,)
        found = [(due, seconds, cause) for due, seconds, status, cause
                 in zip(self.due, self.seconds, self.statuses, self.causes, strict=True)
                 if status not in fine]
        return {
            "count": len(found), "sent_late_p99_ms": round(1000 * _p99(self.late), 1), "causes": dict(Counter(cause for _, _, cause in found)),
            "phases": dict(Counter(self._phase(due + seconds) for due, seconds, _ in found)),
            "first": [{"due_s": round(due, 2), "took_s": round(seconds, 3), "cause": cause,
                       "phase": self._phase(due + seconds)}
                      for due, seconds, cause in found[:_NAMED]],
        }

    def slowest(self) -> list[dict[str, Any]]:
        """The greatest latency of each second, of the ten worst: when it was due, and the phase."""
        worst = dict[int, float]()
        for due, seconds in zip(self.due, self.seconds, strict=True):
            worst[int(due)] = max(worst.get(int(due), 0.0), seconds)
        ten = sorted(sorted(worst, key=lambda second: -worst[second])[:10])
        return [{"second": second, "ms": round(1000 * worst[second], 1),
                 "phase": self._phase(second)} for second in ten]

    def _phase(self, moment: float) -> str:
        return next((name for since, name in reversed(self.marks) if since <= moment), "")

    def count(self, *statuses: int) -> int:
        return sum(status in statuses for status in self.statuses)

    def p99_ms(self, *statuses: int) -> float:
        """Of the requests that were answered with one of these."""
        return 1000 * _p99([s for s, status in zip(self.seconds, self.statuses, strict=True)
                            if status in statuses])


def _p99(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[int(0.99 * (len(ordered) - 1))] if ordered else float("nan")


class _Broken(Exception):
    """No answer came; why."""


class _Connections:
    """Idle keep-alive connections to one server."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = []

    async def ask(self, request: bytes) -> tuple[int, str]:
        """The status, and what an answer that is no 200 says."""
        kept = self._kept()
        idle = "a new connection" if kept is None else "a kept connection"
        reader, writer = kept or await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            fields, status = head.lower(), int(head.split(b" ", 2)[1])
            if b"content-length:" not in fields:  # no answer of the endpoint's own
                writer.close()
                return status, f"{status} without a body"
            length = int(fields.split(b"content-length:")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
        except BaseException as error:
            writer.close()
            raise _Broken(f"{type(error).__name__} on {idle}") from error
        if b"connection: close" in fields:
            writer.close()
        else:
            self._idle.append((reader, writer, time.monotonic()))
        return status, "" if status == 200 else f"{status} {body[:200].decode(errors='replace')}"

    def _kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection that the server has surely not closed yet: it does after a minute."""
        while self._idle:
            reader, writer, since = self._idle.pop()
            if time.monotonic() - since < _FRESH_S and not reader.at_eof():
                return reader, writer
            writer.close()
        return None

    def close(self) -> None:
        for _, writer, _ in self._idle:
            writer.close()


async def _drive(
    port: int, requests: Sequence[bytes], rate: float, duration_s: float,
    meanwhile: Callable[[], Coroutine[None, None, None]] | None, result: Open,
) -> None:
    connections, rng = _Connections("127.0.0.1", port), random.Random(0)
    result.began = start = time.perf_counter()
    other = None if meanwhile is None else asyncio.create_task(meanwhile())

    async def one(due: float) -> None:
        left = time.perf_counter() - start
        try:
            request = rng.choice(requests)
            status, cause = await asyncio.wait_for(connections.ask(request), GIVE_UP_S)
        except TimeoutError:
            status, cause = 0, f"nothing within {GIVE_UP_S:g} s"
        except (_Broken, OSError) as error:
            status, cause = 0, str(error)
        result.due.append(due)
        result.late.append(left - due)
        result.seconds.append(time.perf_counter() - start - due)
        result.statuses.append(status)
        result.causes.append(cause)

    tasks, due = set[asyncio.Task[None]](), 0.0
    while (due < duration_s) if other is None else not other.done():
        due += rng.expovariate(rate)
        pause = start + due - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        task = asyncio.create_task(one(due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    if other is not None:
        await other
    connections.close()


def drive_open(
    port: int, request: bytes | Sequence[bytes], *, rate: float, duration_s: float = 0.0,
    meanwhile: Callable[[], Coroutine[None, None, None]] | None = None, into: Open | None = None,
) -> Open:
    """`rate` requests a second, Poisson, for `duration_s`, or for as long as `meanwhile` runs; of
    several requests, any. `into`: where the answers go, which `meanwhile` may `mark`."""
    requests = [request] if isinstance(request, bytes) else request
    result = Open() if into is None else into
    asyncio.run(_drive(port, requests, rate, duration_s, meanwhile, result))
    return result
