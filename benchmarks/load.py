"""A load generator: keep-alive connections, each with one request in flight."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """What the clients saw. Latencies in ms, of the answered requests."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    answered: int
    failed: int


async def _client(
    host: str, port: int, request: bytes, stop_at: float, seconds: list[float], failed: list[int]
) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        while time.perf_counter() < stop_at:
            started = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            fields = head.lower()
            if b"transfer-encoding: chunked" in fields:
                await reader.readuntil(b"\r\n0\r\n\r\n")
            else:
                length = int(fields.split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
            if head.split(b" ", 2)[1] == b"200":
                seconds.append(time.perf_counter() - started)
            else:
                failed[0] += 1
            if b"connection: close" in fields:
                writer.close()
                reader, writer = await asyncio.open_connection(host, port)
    finally:
        writer.close()


async def _drive(
    host: str, port: int, request: bytes, connections: int, duration_s: float
) -> Load:
    seconds, failed = list[float](), [0]
    started = time.perf_counter()
    clients = [
        _client(host, port, request, started + duration_s, seconds, failed)
        for _ in range(connections)
    ]
    broken = [end for end in await asyncio.gather(*clients, return_exceptions=True) if end]
    took = time.perf_counter() - started
    ordered = sorted(seconds) or [float("nan")]
    return Load(
        requests_per_s=len(seconds) / took, p50_ms=1000 * ordered[len(ordered) // 2],
        p99_ms=1000 * ordered[int(0.99 * (len(ordered) - 1))], answered=len(seconds),
        failed=failed[0] + len(broken),
    )


def post(
    host: str, port: int, body: bytes, kind: str = "application/json", path: str = "/predict",
    more: str = "",
) -> bytes:
    """A POST of `body` as it goes over the wire; `more`: header lines, each with its end."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: {kind}\r\n{more}"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def drive(
    host: str, port: int, body: bytes, *, connections: int, duration_s: float,
    path: str = "/predict", kind: str = "application/json",
) -> Load:
    """POST `body` over `connections` connections for `duration_s` seconds."""
    request = post(host, port, body, kind, path)
    return asyncio.run(_drive(host, port, request, connections, duration_s))
