"""The folders of runs in a store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raymill.events import Event
from raymill.stored_runs import stored, take_up
from raymill.stores import Folder
from raymill.tracking.home import Home
from raymill.tracking.runs import Run

KEY = "0123456789abcdef0123"


def test_a_run_that_was_killed_is_gone_on_with_on_another_machine(tmp_path: Path) -> None:
    store, here, there = Folder(tmp_path / "store"), Home.find(tmp_path / "a"), tmp_path / "b"
    told: list[Event] = []
    with (
        pytest.raises(KeyboardInterrupt), Run.begin(here, "fraud", KEY, "name: fraud\n") as run,
        stored(run, store, told.append),
    ):
        run.journal.append("note", text="half-way")
        raise KeyboardInterrupt  # a kill would leave the same
    other = Home.find(there)
    take_up(other, "f" * 20, store)
    assert not list(other.runs.iterdir())  # another spec's
    take_up(other, KEY, store)
    with Run.begin(other, "fraud", KEY, "name: fraud\n") as again, stored(
        again, store, told.append
    ):
        assert again.resumed and again.id == run.id
        assert [e.data["text"] for e in again.journal.read() if e.kind == "note"] == ["half-way"]
        (again.path / "report.html").write_text("all of it")
        again.end(None)
    assert not (store / "unended").names()  # nothing is to be gone on with
    assert json.loads(store.read(f"runs/{run.id}/run.json"))["status"] == "finished"
    assert store.read(f"runs/{run.id}/report.html") == b"all of it"
    assert not told


def test_a_name_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    store, home = Folder(tmp_path / "store"), Home.find(tmp_path / "a")
    store.write(f"unended/{KEY}.json", json.dumps({"id": "../../out"}).encode())
    for name in ("run.json", "spec.yaml"):
        store.write(f"out/{name}", b"{}")
    take_up(home, KEY, store)
    assert not list(home.runs.iterdir()) and not (tmp_path / "out").exists()


def test_a_store_that_fails_is_told_and_ends_no_run(tmp_path: Path) -> None:
    class Away(Folder):
        def put(self, name: str, source: Path) -> None:
            raise OSError("it is away")

        def __truediv__(self, name: str) -> Folder:
            return Away(self.path / name)

    told: list[Event] = []
    home, store = Home.find(tmp_path / "a"), Away(tmp_path / "store")
    with Run.begin(home, "fraud", KEY, "name: fraud\n") as run, stored(run, store, told.append):
        pass
    [warning] = told
    assert "could not be put into" in warning.data["text"] and "it is away" in warning.data["text"]
