"""Who changed which model, when and why: a chain of hashes that shows an altered or cut line."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from raymill.errors import ArtifactError

GENESIS = "0" * 64


class Audit:
    """An append-only log. Each line holds the SHA-256 of the one before, so that no line can be
    changed, removed or put between others unseen; only lines cut off at the very end can't be
    noticed from the file alone."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, action: str, actor: str, **data: Any) -> dict[str, Any]:
        """Add an entry and return it; it is on disk when this returns."""
        mode = os.O_RDWR | os.O_CREAT | os.O_APPEND
        with os.fdopen(os.open(self.path, mode, 0o600), "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole != len(content):
                data["cut"] = len(content) - whole  # bytes of a line that a killed writer began
                os.ftruncate(file.fileno(), whole)
            lines = content[:whole].splitlines()
            last: dict[str, Any] = {"number": 0, "hash": GENESIS}
            if lines:
                last = json.loads(lines[-1])
            entry = {
                "number": last["number"] + 1, "time": time.time(), "action": action,
                "actor": actor, "data": data, "previous": last["hash"],
            }
            entry["hash"] = _hash(entry)
            file.write(json.dumps(entry, default=str).encode() + b"\n")
            os.fsync(file.fileno())
        return entry

    def read(self) -> list[dict[str, Any]]:
        """Every entry, oldest first."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def verify(self) -> int:
        """Check the chain; the number of entries.

        Raises:
            ArtifactError: a line was changed, removed or added; it names the line.
        """
        previous, lines = GENESIS, []
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                sound = (entry["number"], entry["previous"]) == (number, previous)
                sound = sound and entry["hash"] == _hash(entry)
            except (ValueError, KeyError, TypeError):
                sound = False
            if not sound:
                raise ArtifactError(f"the audit log is a chain of hashes, but {self.path} was "
                                    f"altered at line {number}")
            previous = entry["hash"]
        return len(lines)


def _hash(entry: dict[str, Any]) -> str:
    body = {key: value for key, value in entry.items() if key != "hash"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).hexdigest()
