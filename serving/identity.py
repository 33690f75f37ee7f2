"""Ids of answers, and the trace that a client's request belongs to."""

from __future__ import annotations

import os
import re
import time

HEADER, TRACEPARENT = b"x-raymill-id", b"traceparent"
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")

_STORE = 128
_chances = list[bytes]()


def new_id() -> str:
    """A UUIDv7 (RFC 9562): milliseconds since 1970 and 74 random bits, so ids sort by time."""
    moment = time.time_ns() // 1_000_000
    chance = _chance()
    value = (moment << 80 | 0x7 << 76 | (chance >> 68 & 0xFFF) << 64
             | 0x2 << 62 | chance & 0x3FFF_FFFF_FFFF_FFFF)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _chance() -> int:
    """80 random bits. The system is asked for many at once: each time, another thread gets the
    interpreter meanwhile."""
    while True:
        try:
            return int.from_bytes(_chances.pop(), "big")
        except IndexError:
            many = os.urandom(10 * _STORE)
            _chances.extend(many[at : at + 10] for at in range(0, len(many), 10))


os.register_at_fork(after_in_child=_chances.clear)  # or both would give the same ids


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
