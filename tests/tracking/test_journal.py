"""The journal: what was appended is there, whatever happened to the writer."""

from __future__ import annotations

import math
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from raymill.errors import ArtifactError
from raymill.events import Event
from raymill.tracking.journal import Journal


def test_entries_come_back_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("params", lr=1e-3, note="zwölf\nlines")
    journal.append_event(Event("epoch", {"trial": 2, "metrics": {"loss": math.inf}}, 12.5))
    first, second = journal.read()
    assert (first.kind, first.data) == ("params", {"lr": 1e-3, "note": "zwölf\nlines"})
    assert (second.kind, second.data["metrics"]["loss"], second.time) == ("epoch", math.inf, 12.5)


def test_progress_is_not_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append_event(Event("progress", {"done": 1}))
    assert journal.read() == []


def test_numpy_numbers_are_numbers(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("metrics", loss=np.float32(0.5), path=tmp_path)
    assert journal.read()[0].data == {"loss": 0.5, "path": str(tmp_path)}


def test_file_is_for_its_owner(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("params")
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("torn", [b'{"time": 1, "ki', b"\0\0\0\0\n", b'{"time": 1}\n'])
def test_torn_last_line_is_left_out_and_cut_off(tmp_path: Path, torn: bytes) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("params", n=1)
    with journal.path.open("ab") as file:
        file.write(torn)
    assert [entry.data for entry in journal.read()] == [{"n": 1}]
    again = Journal(journal.path)
    again.append("params", n=2)
    assert [entry.data for entry in again.read()] == [{"n": 1}, {"n": 2}]


def test_broken_line_before_the_last_is_told(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("params", n=1)
    with journal.path.open("ab") as file:
        file.write(b"garbage\n")
    journal.append("params", n=2)
    with pytest.raises(ArtifactError, match=r"journal\.jsonl is broken"):
        journal.read()


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("params", n=1)
    _, offset = journal.read_from(0)
    assert journal.read_from(offset) == ([], offset)
    journal.append("params", n=2)
    entries, end = journal.read_from(offset)
    assert [entry.data["n"] for entry in entries] == [2]
    assert end == journal.path.stat().st_size


def test_threads_do_not_mix_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")

    def write(number: int) -> None:
        for step in range(50):
            journal.append("metrics", number=number, step=step, filler="x" * 500)

    threads = [Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((e.data["number"], e.data["step"]) for e in journal.read()) == [
        (n, s) for n in range(4) for s in range(50)
    ]


def test_killed_writer_loses_nothing_that_was_appended(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    code = (
        "import sys; from pathlib import Path; from raymill.tracking.journal import Journal\n"
        f"journal = Journal(Path({str(path)!r}))\n"
        "for n in range(10**6): journal.append('metrics', n=n); print(n, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = -1
        while said < 20:
            said = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read().split()
    said = int(rest[-1]) if rest else said
    numbers = [entry.data["n"] for entry in Journal(path).read()]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > said
