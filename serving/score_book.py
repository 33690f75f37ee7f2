"""The book of a batch scoring: what is done, so that no row is scored twice or forgotten."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raymill.errors import Problem, UsageError

from .score_units import QUARANTINE, Done

FOLDER = "_raymill"  # readers of data sets skip names that begin so
IDENTITY, LINES, MANIFEST, HALT = "score.json", "done.jsonl", "manifest.json", "halt"


class Book(ABC):
    """What is done of a scoring into `out`; while `halt` is there, no worker begins a unit."""

    def __init__(self, out: str, done: dict[str, Done]) -> None:
        self.done = done
        self.resumed = len(done)
        self.halt = f"{out}/{FOLDER}/{HALT}"

    @abstractmethod
    def add(self, done: Done) -> None:
        """Take down a unit whose files are there."""

    @abstractmethod
    def write(self, name: str, document: Mapping[str, Any]) -> None:
        """Keep a document beside the units."""

    @property
    def scored(self) -> int:
        return sum(done.scored for done in self.done.values())

    @property
    def quarantined(self) -> int:
        return sum(done.quarantined for done in self.done.values())

    def finish(self, identity: Mapping[str, Any]) -> None:
        """The manifest: the scoring is whole, and these are its files; `quarantine` lists those of
        the rows that were set aside."""
        files: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
        for _, done in sorted(self.done.items()):
            for file in done.files:
                told = {key: value for key, value in file.items() if key != "folder"}
                told["name"] = f"{file['folder']}/{file['name']}".lstrip("/")
                files[file["folder"] == QUARANTINE].append(told)
        self.write(MANIFEST, {
            **identity, "scored": self.scored, "quarantined": self.quarantined,
            "files": files[False], "quarantine": files[True]})


class FolderBook(Book):
    """A line a finished unit, each on the disk before the next begins to count."""

    def __init__(self, out: Path, done: dict[str, Done]) -> None:
        super().__init__(str(out.absolute()), done)
        self._folder = out / FOLDER

    def add(self, done: Done) -> None:
        with (self._folder / LINES).open("a", encoding="utf-8") as file:
            file.write(done.to_json() + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.done[done.part] = done

    def write(self, name: str, document: Mapping[str, Any]) -> None:
        _write(self._folder / name, document)


@contextmanager
def opened(out: Path, identity: Mapping[str, Any], *, restart: bool) -> Iterator[Book]:
    """The book of `out`, held by this process alone; a killed scoring's goes on.

    Raises:
        UsageError: `out` holds something else, another scoring, or one that is going on.
    """
    folder = out / FOLDER
    if out.exists() and not folder.exists() and any(out.iterdir()):
        raise UsageError(Problem(rule="a scoring needs a folder of its own", got=f"files in {out}",
                                 cure="Name a new folder."))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another process is scoring into {out}",
                             cure="Wait for it, or stop it.") from None
        if restart:
            _clear(out)
        if (folder / IDENTITY).exists():
            check_same(str(out), json.loads((folder / IDENTITY).read_text()), identity)
        for name in (MANIFEST, HALT):
            (folder / name).unlink(missing_ok=True)
        _write(folder / IDENTITY, identity)
        for left in out.rglob(".*.tmp"):  # of workers that were killed
            left.unlink()
        yield FolderBook(out, _read(out))


def check_same(out: str, before: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """
    Raises:
        UsageError: `before`, of another scoring, is what `out` holds.
    """
    for key, value in json.loads(json.dumps(identity)).items():
        if before.get(key) != value:
            raise UsageError(Problem(
                rule=f"{out} holds another scoring: its {key} is {before.get(key)}",
                got=str(value), cure="Name a new folder, or give --restart to begin anew."))


def _read(out: Path) -> dict[str, Done]:
    """The finished units whose files are all there; half a line, of a kill, is cut off."""
    path = out / FOLDER / LINES
    if not path.exists():
        return {}
    written = path.read_bytes()
    whole = written[: written.rfind(b"\n") + 1]
    os.truncate(path, len(whole))
    found = map(Done.from_json, whole.decode().splitlines())
    return {done.part: done for done in found if all(_same(out, file) for file in done.files)}


def _same(out: Path, said: Mapping[str, Any]) -> bool:
    path = out / said["folder"] / said["name"]
    if not path.is_file() or path.stat().st_size != said["size"]:
        return False
    with path.open("rb") as file:
        return bool(hashlib.file_digest(file, "sha256").hexdigest() == said["sha256"])


def _clear(out: Path) -> None:
    """Only what a scoring has written: its parts, its quarantine and its book."""
    for path in out.rglob("part-*"):
        path.unlink()
    for name in (IDENTITY, LINES, MANIFEST):
        (out / FOLDER / name).unlink(missing_ok=True)


def _write(path: Path, document: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
