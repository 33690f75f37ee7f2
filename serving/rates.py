"""A token bucket for each holder of a key, shared by all replicas of a service."""

from __future__ import annotations

import fcntl
import hashlib
import math
import mmap
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

from .answers import Request
from .problems import HttpProblem
from .spec import RateSpec

_SLOT = struct.Struct("<8sdd")  # holder's hash, tokens, when they were counted
_SLOTS = 4096
_FREE = bytes(8)


class Rates:
    """A guard that refuses a holder who asks too often.

    The buckets lie in one file, which every replica maps, so the rate holds for all of them
    together however many there are.

    Args:
        clock: seconds, the same in every process (CLOCK_MONOTONIC is).
    """

    def __init__(
        self, path: Path, rate: RateSpec, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._clock = rate, clock
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._file, _SLOT.size * _SLOTS)
        self._map = mmap.mmap(self._file, _SLOT.size * _SLOTS)

    def __call__(self, request: Request) -> None:
        """Takes a token of the request's holder.

        Raises:
            HttpProblem: 429, with when to come back.
        """
        wait_s = self.take(request.holder)
        if wait_s > 0:
            after = math.ceil(wait_s)
            detail = f"This key may ask {self._rate.per_s:g} times a second; wait {after} s."
            raise HttpProblem(429, detail, headers=[(b"retry-after", str(after).encode())])

    def take(self, holder: str) -> float:
        """0, or the seconds until there is a token."""
        name = hashlib.sha256(holder.encode()).digest()[:8]
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            at, tokens, then = self._find(name)
            now = self._clock()
            tokens = min(float(self._rate.burst), tokens + (now - then) * self._rate.per_s)
            granted = tokens >= 1
            _SLOT.pack_into(self._map, at, name, tokens - granted, now)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
        return 0.0 if granted else (1 - tokens) / self._rate.per_s

    def _find(self, name: bytes) -> tuple[int, float, float]:
        """Place, tokens and time of a holder's slot: its own, or a free one with a full bucket."""
        first = int.from_bytes(name[:4], "little")
        for step in range(_SLOTS):
            at = (first + step) % _SLOTS * _SLOT.size
            found, tokens, then = _SLOT.unpack_from(self._map, at)
            if found == name:
                return at, tokens, then
            if found == _FREE:
                break
        return at, float(self._rate.burst), self._clock()

    def close(self) -> None:
        self._map.close()
        os.close(self._file)
