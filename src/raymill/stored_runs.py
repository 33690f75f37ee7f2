"""The folders of runs in a store: kept up while a run goes on, and taken up on another machine."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath

from raymill.events import Notify, warn
from raymill.stores import Store, cause, shipped
from raymill.tracking.home import Home
from raymill.tracking.runs import ID, Run

SHIPPED_S = 15.0
_KEY = re.compile(r"[0-9a-f]{20}")


def take_up(home: Home, key: str, store: Store) -> None:
    """Bring the folder of the run of that key that did not end, if it began on another machine."""
    assert _KEY.fullmatch(key)
    try:
        id = str(json.loads(store.read(_pointer(key)))["id"])
    except FileNotFoundError:
        return
    target = home.runs / id
    if not ID.fullmatch(id) or target.exists():
        return
    draft = home.runs / f".{id}"
    shutil.rmtree(draft, ignore_errors=True)
    there = store / f"runs/{id}"
    names = there.names()
    if not {"run.json", "spec.yaml"} <= set(names):
        return  # it was killed before they were there
    for name in names:
        if ".." not in PurePosixPath(name).parts:
            (draft / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            there.get(name, draft / name)
    draft.rename(target)


@contextmanager
def stored(run: Run, store: Store, notify: Notify) -> Iterator[None]:
    """Keep the files of `run` in `store` too, while the block runs, and its key while the run is
    to be gone on with."""

    def failed(error: OSError) -> None:
        warn(notify, f"the run's own files could not be put into {store}: {cause(error)}")

    def names() -> list[str]:
        found = (path.relative_to(run.path) for path in run.path.rglob("*") if path.is_file())
        seen = [name.as_posix() for name in found if not name.name.startswith(".")]
        # How far MLflow has the journal may be said of a shorter journal, not of a longer one.
        return sorted(seen, key=lambda name: (name == "journal.jsonl", name))

    store.write(_pointer(run.key), json.dumps({"id": run.id}).encode())
    try:
        with shipped(run.path, names, store / f"runs/{run.id}", SHIPPED_S, failed):
            yield
    finally:
        if run.status in ("finished", "failed"):
            with suppress(OSError):
                store.remove(_pointer(run.key))


def _pointer(key: str) -> str:
    return f"unended/{key}.json"
