"""Answers that leave in one piece: head and body by one write.

uvicorn writes the head, and then the body. A replica that dies in between has begun an answer, which
nobody can ask for again; and who waits for it is woken twice.
"""

from __future__ import annotations

from typing import Any


class _Kept:
    """A transport to which a head is written."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


class _Joined:
    """A transport whose next write has a head before it."""

    __slots__ = ("_head", "_real")

    def __init__(self, real: Any, head: bytes) -> None:
        self._real, self._head = real, head

    def write(self, data: bytes) -> None:
        self._real.write(self._head + data)
        self._head = b""

    def close(self) -> None:
        self._real.close()

    def is_closing(self) -> bool:
        return bool(self._real.is_closing())


def answer_in_one_piece() -> None:
    """From now on in this process; calling it again changes nothing."""
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle as Cycle

    if hasattr(Cycle, "raymill_head"):
        return
    plain = Cycle.send

    async def send(cycle: Any, message: Any) -> None:
        real = cycle.transport
        if message["type"] == "http.response.start" and cycle.scope["method"] != "HEAD":
            cycle.transport = kept = _Kept()
            try:
                await plain(cycle, message)
            finally:
                cycle.transport = real
            cycle.raymill_head = kept.data
        elif cycle.raymill_head:
            cycle.transport = _Joined(real, cycle.raymill_head)
            cycle.raymill_head = b""
            try:
                await plain(cycle, message)
            finally:
                cycle.transport = real
        else:
            await plain(cycle, message)

    Cycle.raymill_head = b""  # type: ignore[attr-defined]
    Cycle.send = send  # type: ignore[assignment, method-assign]
