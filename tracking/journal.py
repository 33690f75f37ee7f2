"""The record of a run: an append-only file that survives being killed at any moment."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymill.errors import ArtifactError
from raymill.events import Event


@dataclass(frozen=True)
class Entry:
    """One line: what happened, when (epoch seconds), and its JSON data."""

    kind: str
    data: dict[str, Any]
    time: float


class Journal:
    """JSON lines, each on disk before `append` returns. Safe to use from several threads of one
    process; the lock of its run keeps other processes from appending."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file: int | None = None

    def append(self, kind: str, **data: Any) -> None:
        """Add an entry; it is on disk when this returns."""
        self._write(Entry(kind, data, time.time()))

    def append_event(self, event: Event) -> None:
        """Add an event as it is. Progress is for the screen only and isn't kept."""
        if event.kind != "progress":
            self._write(Entry(event.kind, event.data, event.time))

    def read(self) -> list[Entry]:
        """Every whole entry, in order; a torn last line is left out.

        Raises:
            ArtifactError: a line before the last can't be read; it names the line.
        """
        return self.read_from(0)[0]

    def read_from(self, offset: int) -> tuple[list[Entry], int]:
        """The whole entries from byte `offset` on, and the offset of what comes after them."""
        if not self.path.exists():
            return [], offset
        with self.path.open("rb") as file:
            file.seek(offset)
            content = file.read()
        lines = content.split(b"\n")[:-1]
        entries: list[Entry] = []
        for number, line in enumerate(lines, 1):
            entry = _parse(line)
            if entry is None and number == len(lines):
                return entries, offset
            if entry is None:
                raise ArtifactError(f"a journal holds JSON lines, but {self.path} is broken "
                                    f"{number} lines after byte {offset}")
            entries.append(entry)
            offset += len(line) + 1
        return entries, offset

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _write(self, entry: Entry) -> None:
        record = {"time": entry.time, "kind": entry.kind, "data": entry.data}
        line = json.dumps(record, default=_plain).encode() + b"\n"
        with self._lock:
            if self._file is None:
                self._file = _open_whole(self.path)
            os.write(self._file, line)
            os.fsync(self._file)


def _open_whole(path: Path) -> int:
    """Open for appending; what a killed writer left half-written is cut off first."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    last = content[:whole].rstrip(b"\n").rfind(b"\n") + 1
    if whole and _parse(content[last:whole]) is None:
        whole = last
    if whole != len(content):
        os.ftruncate(file, whole)
    return file


def _parse(line: bytes) -> Entry | None:
    try:
        record = json.loads(line)
        return Entry(record["kind"], record["data"], record["time"])
    except (ValueError, KeyError, TypeError):
        return None


def _plain(value: Any) -> Any:
    """A NumPy scalar as a number, anything else as text."""
    return value.item() if hasattr(value, "item") else str(value)
