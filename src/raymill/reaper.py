"""Ends every process of a Ray session when its driver is gone, however the driver ended.

A process of its own: `python -I -S reaper.py MARK [FOLDER]`. It waits for the end of its standard
input, whose other end only the driver holds, so that a kill -9 of the driver is noticed at once.
Processes are known by MARK in their environment, which every child inherits, also those that
started a session of their own or lost their parent. Stands alone: no import beyond Python's own.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

GRACE_S = 3.0  # Ray's processes follow their raylet within this time on their own
GIVE_UP_S = 20.0


def marked(mark: bytes) -> list[int]:
    """The processes, but this one, whose environment holds `mark`."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes()
            zombie = (entry / "stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X")
        except OSError:  # gone meanwhile, or another user's
            continue
        if mark in environment.split(b"\0") and not zombie:
            found.append(int(entry.name))
    return found


def reap(mark: bytes, grace_s: float = GRACE_S) -> int:
    """Wait `grace_s` for the marked processes to go, then kill them; the number killed."""
    start = time.monotonic()
    killed: set[int] = set()
    while (left := marked(mark)) and time.monotonic() - start < GIVE_UP_S:
        if time.monotonic() - start >= grace_s:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
                except ProcessLookupError:
                    pass
        time.sleep(0.05)
    return len(killed)


def main(arguments: list[str]) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    while os.read(0, 4096):
        pass
    reap(arguments[0].encode())
    for folder in arguments[1:]:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
