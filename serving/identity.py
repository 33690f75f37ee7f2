"""Ids of answers, and the trace that a client's request belongs to."""

from __future__ import annotations

import os
import re
import time

HEADER, TRACEPARENT = b"x-raymill-id", b"traceparent"
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


def new_id() -> str:
    """A UUIDv7 (RFC 9562): milliseconds since 1970 and 74 random bits, so ids sort by time."""
    moment = time.time_ns() // 1_000_000
    chance = int.from_bytes(os.urandom(10), "big")
    value = (moment << 80 | 0x7 << 76 | (chance >> 68 & 0xFFF) << 64
             | 0x2 << 62 | chance & 0x3FFF_FFFF_FFFF_FFFF)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def born(id_: str) -> float | None:
    """When an id was made, in seconds since 1970; None: it is not one of `new_id`."""
    if not _ID.fullmatch(id_):
        return None
    return int(id_[:8] + id_[9:13], 16) / 1000


def trace_of(traceparent: bytes) -> str:
    """The trace id of a W3C `traceparent`; "" where there is none, or it is malformed."""
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if match is None or match[1] == b"ff" or (match[1] == b"00" and match[4]):
        return ""
    return "" if match[2] == b"0" * 32 or match[3] == b"0" * 16 else match[2].decode()
