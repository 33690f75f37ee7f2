"""The processes of Ray and raymill on this machine: what they listen on, and which have no owner.

Every process of a session or service carries a mark in its environment, and a reaper that ends
them waits with the same mark among its arguments. Marked processes without a reaper are orphans.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from .environment import MARKS

NAMES = ("raylet", "gcs_server", "ray::", "ray/dashboard", "ray/_private", "raymill", "mlflow",
         "haproxy")
REAPER = "reaper.py"
# Private folders as tempfile names them, and a file that each has from its start: others make
# folders whose names begin so, too.
FOLDERS = {"raymill-": ("data-logging.yaml", "order.json"), "rm-": ("order.json",)}
_RANDOM = re.compile(r"[a-z0-9_]{8}")


@dataclass(frozen=True)
class Listener:
    """A TCP port that a process listens on."""

    pid: int
    name: str
    ip: str
    port: int

    @property
    def address(self) -> str:
        return f"{self.ip}:{self.port}"

    @property
    def loopback(self) -> bool:
        ip = ipaddress.ip_address(self.ip)
        inner = getattr(ip, "ipv4_mapped", None) or ip
        return bool(inner.is_loopback)


def listeners() -> list[Listener]:
    """What the processes of Ray, MLflow and raymill of this user listen on."""
    found = []
    for process in _own():
        try:
            line = " ".join(process.cmdline())
            if marks_of(process) or any(name in line for name in NAMES):
                found += [
                    Listener(process.pid, process.name(), c.laddr.ip, c.laddr.port)
                    for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN
                ]
        except psutil.Error:
            continue
    return sorted(found, key=lambda each: (each.port, each.pid))


def orphans() -> list[int]:
    """Marked processes that no reaper watches."""
    watched = _watched()
    return sorted(process.pid for process in _own()
                  if (marks := marks_of(process)) and not marks & watched)


def leftovers(base: Path = Path("/tmp")) -> list[Path]:
    """Private folders of sessions and services that no process of this user's uses any more. (One
    of another container that shares `base` is not seen.)"""
    held = {folder for arguments in _reapers() for folder in arguments[1:]}
    held |= {folder for process in _own() for folder in _folders_of(process)}
    return sorted(
        folder for prefix, files in FOLDERS.items() for folder in base.glob(f"{prefix}*")
        if _RANDOM.fullmatch(folder.name.removeprefix(prefix))
        and folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid()
        and any((folder / name).is_file() for name in files) and str(folder) not in held
    )


def marks_of(process: psutil.Process) -> set[str]:
    """`NAME=value` of each mark in a process's environment; empty: not ours, or gone."""
    try:
        variables = process.environ()
    except (psutil.Error, OSError):
        return set()
    return {f"{name}={variables[name]}" for name in MARKS if name in variables}


def _folders_of(process: psutil.Process) -> set[str]:
    """The private folders that a process works in, whichever session it is of."""
    try:
        variables = process.environ()
    except (psutil.Error, OSError):
        return set()
    return {variables.get("RAYMILL_SERVICE", ""), variables.get("RAY_TMPDIR", "")}


def _own() -> Iterator[psutil.Process]:
    me = os.getpid()
    for process in psutil.process_iter():
        try:
            if process.uids().real == os.getuid() and process.pid != me:
                yield process
        except psutil.Error:
            continue


def _reapers() -> Iterator[list[str]]:
    """The arguments of each reaper: its mark, then folders."""
    for process in _own():
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        places = [i for i, part in enumerate(line) if Path(part).name == REAPER]
        if places:
            yield line[places[0] + 1:]


def _watched() -> set[str]:
    return {line[0] for line in _reapers() if line}

