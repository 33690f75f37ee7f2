"""Runs: a folder, a journal and a lock each; what is true of a run is in its folder."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from raymill.errors import UsageError

from .files import locked, open_lock, write_whole
from .home import Home
from .journal import Journal
from .redact import redact, redact_uris

Status = Literal["running", "finished", "failed", "interrupted", "dead"]
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Run:
    """One call of a verb, and its goings-on after it was killed: they share an id and a journal.

    The folder `runs/<id>` holds `run.json` (name, key, status, times), `spec.yaml` (as resolved,
    without credentials), `journal.jsonl`, and what the run made for its reader.
    """

    def __init__(self, home: Home, id: str) -> None:
        self.home = home
        self.id = id
        self.path = home.runs / id
        self.journal = Journal(self.path / "journal.jsonl")
        self.resumed = False

    @classmethod
    @contextmanager
    def begin(cls, home: Home, name: str, key: str, spec_yaml: str) -> Iterator[Run]:
        """A new run, or the last one of the same `key` that was interrupted or died.

        On leaving it is marked finished, interrupted (Ctrl-C, SIGTERM) or failed.

        Raises:
            UsageError: a run of the same key is going on.
        """
        with locked(home.runs / ".begin.lock"):
            run = cls._unended(home, key) or cls._create(home, name, key, spec_yaml)
            lock = run._take()
        with lock:
            run._update(status="running", ended=None, cause=None, pid=os.getpid())
            run.journal.append("run", status="running", name=name, resumed=run.resumed,
                               pid=os.getpid(), boot=_boot_id())
            try:
                yield run
            except BaseException as error:
                run.end(error)
                raise
            else:
                run.end(None)
            finally:
                run.journal.close()

    @classmethod
    def open(cls, home: Home, id: str) -> Run:
        """The run of that id.

        Raises:
            UsageError: there is none.
        """
        run = cls(home, id)
        if not ID.fullmatch(id) or not (run.path / "run.json").exists():
            raise UsageError(f"a run of {home.runs} is asked for, but there is no {id!r}",
                             cure="raymill runs lists them.")
        return run

    @classmethod
    def list(cls, home: Home, name: str | None = None) -> list[Run]:
        """Every run (of the project `name`), oldest first."""
        found = [cls(home, path.parent.name) for path in home.runs.glob("*/run.json")]
        kept = [run for run in found if name is None or run.name == name]
        return sorted(kept, key=lambda run: (run.record["began"], run.id))

    @property
    def record(self) -> dict[str, Any]:
        """The content of `run.json`."""
        content: dict[str, Any] = json.loads((self.path / "run.json").read_text("utf-8"))
        return content

    @property
    def name(self) -> str:
        return str(self.record["name"])

    @property
    def key(self) -> str:
        return str(self.record["key"])

    @property
    def spec_yaml(self) -> str:
        return (self.path / "spec.yaml").read_text("utf-8")

    @property
    def status(self) -> Status:
        """`dead` means killed: marked as running, but no process holds it."""
        status: Status = self.record["status"]
        return "dead" if status == "running" and not self._held() else status

    @property
    def environment(self) -> dict[str, Any]:
        """What the run ran on, without the list of packages; empty before it is known."""
        found = [e.data for e in self.journal.read() if e.kind == "environment"]
        return {k: v for k, v in found[-1].items() if k != "packages"} if found else {}

    def to_dict(self) -> dict[str, Any]:
        """For lists and `--json`; times in epoch seconds."""
        record = self.record
        kept = ("name", "began", "ended", "cause")
        return {"id": self.id, "status": self.status, **{key: record[key] for key in kept}}

    def end(self, error: BaseException | None) -> None:
        """Mark the run as ended by `error` (None: well). Only the first call counts."""
        if self.record["status"] != "running":
            return
        status = "finished" if error is None else "interrupted"
        cause = None
        if isinstance(error, Exception):
            status = "failed"
            cause = redact(f"{type(error).__name__}: {error}".splitlines()[0])[:500]
        self._update(status=status, ended=time.time(), cause=cause)
        self.journal.append("run", status=status, cause=cause)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the run from going on meanwhile.

        Raises:
            UsageError: it is going on.
        """
        with self._take():
            yield

    @classmethod
    def _unended(cls, home: Home, key: str) -> Run | None:
        for run in reversed(cls.list(home)):
            if run.key == key and run.status in ("interrupted", "dead", "running"):
                run.resumed = True
                return run
        return None

    @classmethod
    def _create(cls, home: Home, name: str, key: str, spec_yaml: str) -> Run:
        if not ID.fullmatch(name):
            raise UsageError(f"a run's name is letters, digits, '.', '_' or '-', but got {name!r}")
        stamp = time.strftime("%Y%m%d-%H%M%S")
        run = cls(home, f"{name}-{stamp}-{secrets.token_hex(3)}")
        run.path.mkdir(mode=0o700)
        write_whole(run.path / "spec.yaml", redact_uris(spec_yaml))
        first = {"name": name, "key": key, "status": "running", "began": time.time(),
                 "ended": None, "cause": None, "pid": os.getpid()}
        write_whole(run.path / "run.json", json.dumps(first, indent=1))
        return run

    def _update(self, **changes: Any) -> None:
        write_whole(self.path / "run.json", json.dumps({**self.record, **changes}, indent=1))

    def _take(self) -> IO[str]:
        """Hold this run for as long as the returned file is open, in this process only."""
        file = open_lock(self.path / ".lock")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise UsageError(
                f"a run can be in one process at a time, but {self.id} is going on (process "
                f"{self.record['pid']})", cure="Wait for it, or stop it.",
            ) from None
        return file

    def _held(self) -> bool:
        with open_lock(self.path / ".lock") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


def _boot_id() -> str:
    return BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""
