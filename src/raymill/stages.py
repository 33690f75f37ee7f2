"""Stages that are done once: a result is kept under the hash of all it depends on."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymill import __version__
from raymill.errors import UsageError
from raymill.events import Event, Notify

if TYPE_CHECKING:
    from raymill.stores import Store


def key_of(inputs: Mapping[str, Any]) -> str:
    """20 hex digits that name `inputs` (JSON-serialisable), this raymill's version included."""
    text = json.dumps({"raymill": __version__, **inputs}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def write_json(path: Path, document: Any) -> None:
    """Write all of it or nothing: a temporary file, fsync, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(document, file, indent=1, default=str)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; the lock goes with the process.

    Raises:
        UsageError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"one raymill works on a stage at a time, but another holds {folder}",
                cure="Wait for the other run, or stop it.",
            ) from None
        yield


class Stages:
    """Runs stages, or finds them done: here, or in a `store`."""

    def __init__(self, cache: Path, notify: Notify, store: Store | None = None) -> None:
        self.cache = cache
        self.notify = notify
        self.store = store

    @contextmanager
    def announced(self, name: str, **facts: Any) -> Iterator[dict[str, Any]]:
        """Tell that stage `name` starts and how it ends; fill the yielded dict's `detail`."""
        began = time.monotonic()
        said: dict[str, Any] = {"name": name, "status": "finished"}
        self.notify(Event("stage", {"name": name, "status": "started", **facts}))
        try:
            yield said
        except BaseException as error:
            said["status"] = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            raise
        finally:
            self.notify(Event("stage", {**said, "seconds": time.monotonic() - began}))

    def run(
        self,
        name: str,
        inputs: Mapping[str, Any],
        build: Callable[[Path], dict[str, Any]],
        *,
        mark: str = "done",
        detail: Callable[[dict[str, Any]], str] = lambda _: "",
        good: Callable[[Path, dict[str, Any]], bool] = lambda folder, result: True,
        **facts: Any,
    ) -> tuple[Path, dict[str, Any]]:
        """The folder and the result of a stage.

        `build(folder)` is called unless the same `inputs` were built before; it may find what a
        killed run left in `folder` and go on from there. `mark` tells apart results that share
        a folder, such as a search with more trials. `facts` go into the stage's events.
        A result that is no longer `good` is built again: a store has only what `build` put there.
        """
        folder = self.cache / name / key_of({"stage": name, **inputs})
        done = folder / f"{mark}.json"
        there = self.store and self.store / name / folder.name
        if there is not None and not done.exists() and there.has(done.name):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_json(done, json.loads(there.read(done.name)))
        result: dict[str, Any] = json.loads(done.read_text("utf-8")) if done.exists() else {}
        if done.exists() and good(folder, result):
            self.notify(Event("stage", {"name": name, "status": "skipped",
                                        "detail": detail(result)}))
            return folder, result
        with self.announced(name, **facts) as said, locked(folder):
            result = build(folder)
            write_json(done, result)
            if there is not None:
                there.put(done.name, done)
            said["detail"] = detail(result)
        return folder, result
