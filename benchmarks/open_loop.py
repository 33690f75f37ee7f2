"""An open-loop load: requests leave at their own times, whether or not others were answered.

Latency counts from the time a request was due, so a server that stalls is charged for all that
had to wait (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field

GIVE_UP_S, _FRESH_S = 30.0, 20.0


@dataclass
class Open:
    """What became of each request: when it was due (s from the start), its seconds, its status
    (0: the connection broke or nothing came within 30 s)."""

    due: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    def count(self, *statuses: int) -> int:
        return sum(status in statuses for status in self.statuses)

    def p99_ms(self, *statuses: int) -> float:
        """Of the requests that were answered with one of these."""
        taken = sorted(s for s, status in zip(self.seconds, self.statuses, strict=True)
                       if status in statuses)
        return 1000 * taken[int(0.99 * (len(taken) - 1))] if taken else float("nan")


class _Connections:
    """Idle keep-alive connections to one server."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = []

    async def ask(self, request: bytes) -> int:
        reader, writer = self._kept() or await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b"content-length:" not in head:  # no answer of the endpoint's own
                writer.close()
                return int(head.split(b" ", 2)[1])
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
        except BaseException:
            writer.close()
            raise
        if b"connection: close" in head:
            writer.close()
        else:
            self._idle.append((reader, writer, time.monotonic()))
        return int(head.split(b" ", 2)[1])

    def _kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection that the server has surely not closed yet: it does after a minute."""
        while self._idle:
            reader, writer, since = self._idle.pop()
            if time.monotonic() - since < _FRESH_S:
                return reader, writer
            writer.close()
        return None

    def close(self) -> None:
        for _, writer, _ in self._idle:
            writer.close()


async def _drive(
    port: int, requests: Sequence[bytes], rate: float, duration_s: float,
    meanwhile: Callable[[], Coroutine[None, None, None]] | None,
) -> Open:
    result, connections, rng = Open(), _Connections("127.0.0.1", port), random.Random(0)
    start = time.perf_counter()
    other = None if meanwhile is None else asyncio.create_task(meanwhile())

    async def one(due: float) -> None:
        try:
            request = rng.choice(requests)
            status = await asyncio.wait_for(connections.ask(request), GIVE_UP_S)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            status = 0
        result.due.append(due)
        result.seconds.append(time.perf_counter() - start - due)
        result.statuses.append(status)

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
    return result


def drive_open(
    port: int, request: bytes | Sequence[bytes], *, rate: float, duration_s: float = 0.0,
    meanwhile: Callable[[], Coroutine[None, None, None]] | None = None,
) -> Open:
    """`rate` requests a second, Poisson, for `duration_s`, or for as long as `meanwhile` runs; of
    several requests, any."""
    requests = [request] if isinstance(request, bytes) else request
    return asyncio.run(_drive(port, requests, rate, duration_s, meanwhile))
