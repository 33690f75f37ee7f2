"""Free TCP ports of loopback."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST, _TRIES = 10_000, 100


def free_port() -> int:
    """A port that nothing listens on now. It lies below those that the kernel gives to outgoing
    connections, where there is room: one of these could take it before it is bound."""
    first = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32_768
    for _ in range(_TRIES if first > _LOWEST + _TRIES else 0):
        port = random.randrange(_LOWEST, first)
        if _binds(port):
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _binds(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
