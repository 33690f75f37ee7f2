"""A free port is one that the kernel gives to no outgoing connection."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from raymill import ports


def test_it_lies_below_the_ports_of_outgoing_connections() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found = {ports.free_port() for _ in range(20)}
    assert all(port < first for port in found) and len(found) > 10


def test_a_taken_one_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", ports.free_port()))
        taken = other.getsockname()[1]
        drawn = iter([taken, taken + 1, taken + 2, taken + 3])
        monkeypatch.setattr("random.randrange", lambda low, high: next(drawn))
        assert ports.free_port() in (taken + 1, taken + 2, taken + 3)
