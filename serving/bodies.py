"""Reads the bodies of requests; everything wrong with one becomes an `HttpProblem`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from .answers import Headers, Receive
from .problems import HttpProblem


def check_headers(headers: Headers, kinds: Collection[bytes], max_bytes: int) -> bytes:
    """The body's content type; refuses a body by its headers, before any of it is read.

    Raises:
        HttpProblem: 415 for a body of none of these kinds, 413 for one that is too long.
    """
    values = dict(headers)
    kind = values.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind not in kinds:
        known = b" or ".join(kinds).decode()
        raise HttpProblem(415, f"The body needs the Content-Type {known}.")
    if values.get(b"content-encoding", b"identity").lower() != b"identity":
        raise HttpProblem(415, "The body must not be compressed.")
    length = values.get(b"content-length", b"0")
    if not length.isdigit() or int(length[:20]) > max_bytes:
        raise _too_long(max_bytes)
    return kind


async def read_body(receive: Receive, max_bytes: int) -> bytes:
    """The whole body; stops at the first byte beyond `max_bytes`.

    Raises:
        HttpProblem: 413.
        asyncio.CancelledError: the client hung up.
    """
    chunks: list[bytes] = []
    left = max_bytes
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise asyncio.CancelledError
        chunk = message.get("body", b"")
        left -= len(chunk)
        if left < 0:
            raise _too_long(max_bytes)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_long(max_bytes: int) -> HttpProblem:
    detail = f"The body must not be longer than {max_bytes} bytes; send the rows in parts."
    return HttpProblem(413, detail, headers=[(b"connection", b"close")])
