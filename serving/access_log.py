"""The access log: a JSON line for each answer, without a value of any request."""

from __future__ import annotations

import logging
import os
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

from .answers import Answer, Request, encode

FILE_BYTES, FILES = 32 * 2**20, 4  # of each replica: the file in use, and those before it


class AccessLog:
    """An observer that writes `<home>/services/access/NAME-PID.jsonl`, rotated at 32 MB, the last
    four kept.

    A line has time, method, the route's path (not the request's), status, ms, bytes of the answer,
    and, where there are any, id, trace, version, variant and the key's holder. Lines are with the
    system when the answer leaves.

    Raises:
        OSError: the folder can't be written.
    """

    def __init__(self, home: Path, name: str) -> None:
        folder = folder_of(home)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = folder / f"{name}-{os.getpid()}.jsonl"
        self._file = RotatingFileHandler(
            self.path, maxBytes=FILE_BYTES, backupCount=FILES - 1, encoding="utf-8")
        _forget_ended(folder, name)

    def __call__(self, request: Request | None, answer: Answer, seconds: float) -> None:
        line: dict[str, object] = {
            "time": round(time.time(), 3),
            "method": request.scope["method"] if request is not None else "",
            "path": request.route.path if request is not None else "other",
            "status": answer.status, "ms": round(1000 * seconds, 3), "bytes": len(answer.body),
        }
        if request is not None:
            told = {"id": request.id, "trace": request.trace, "version": request.version,
                    "variant": request.variant, "key": request.holder}
            line |= {name: value for name, value in told.items() if value}
        record = logging.LogRecord("access", logging.INFO, "", 0, encode(line).decode(), None, None)
        self._file.handle(record)

    def close(self) -> None:
        self._file.close()


def folder_of(home: Path) -> Path:
    return home / "services" / "access"


def _forget_ended(folder: Path, name: str) -> None:
    """Keep the newest files of replicas that have ended, as many as one replica may have."""
    mine = f"{name}-{os.getpid()}."
    ended = [
        path for path in folder.glob(f"{name}-*.jsonl*")
        if not path.name.startswith(mine) and not Path(f"/proc/{_pid(path)}").exists()
    ]
    for path in sorted(ended, key=lambda each: each.stat().st_mtime)[:-FILES]:
        path.unlink(missing_ok=True)


def _pid(path: Path) -> str:
    return path.name.split(".jsonl")[0].rsplit("-", 1)[1]
