"""The audit log: no line can be changed, removed or added unseen."""

from __future__ import annotations

import json
import stat
from multiprocessing import get_context
from pathlib import Path

import pytest

from raymill.errors import ArtifactError
from raymill.tracking.audit import Audit


def filled(path: Path, entries: int = 4) -> Audit:
    audit = Audit(path)
    for number in range(entries):
        audit.append("promote", "me", name="fraud", version=number)
    return audit


def append_some(path: Path) -> None:
    for _ in range(10):
        Audit(path).append("promote", "me")


def test_chain_holds(tmp_path: Path) -> None:
    audit = filled(tmp_path / "audit.jsonl")
    assert audit.verify() == 4
    assert [entry["data"]["version"] for entry in audit.read()] == [0, 1, 2, 3]
    assert stat.S_IMODE(audit.path.stat().st_mode) == 0o600


def test_log_without_entries_is_sound(tmp_path: Path) -> None:
    assert Audit(tmp_path / "audit.jsonl").verify() == 0


@pytest.mark.parametrize("line", [1, 2, 3])
def test_changed_line_is_named(tmp_path: Path, line: int) -> None:
    audit = filled(tmp_path / "audit.jsonl")
    lines = audit.path.read_text().splitlines()
    lines[line - 1] = lines[line - 1].replace('"me"', '"you"')
    audit.path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ArtifactError, match=f"altered at line {line}"):
        audit.verify()


def test_line_with_a_hash_of_its_own_breaks_the_next(tmp_path: Path) -> None:
    audit = filled(tmp_path / "audit.jsonl")
    other = filled(tmp_path / "other.jsonl", 1)
    other.append("promote", "you")
    forged = other.path.read_text().splitlines()[1]
    lines = audit.path.read_text().splitlines()
    lines[1] = json.dumps({**json.loads(forged)})
    audit.path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ArtifactError, match=r"line [23]"):
        audit.verify()


def test_removed_line_is_noticed(tmp_path: Path) -> None:
    audit = filled(tmp_path / "audit.jsonl")
    lines = audit.path.read_text().splitlines()
    audit.path.write_text("\n".join(lines[:1] + lines[2:]) + "\n")
    with pytest.raises(ArtifactError, match="line 2"):
        audit.verify()


def test_torn_line_is_cut_off_and_the_cut_is_told(tmp_path: Path) -> None:
    audit = filled(tmp_path / "audit.jsonl")
    with audit.path.open("ab") as file:
        file.write(b'{"number": 5, "act')
    assert audit.append("rollback", "me")["data"] == {"cut": 18}
    assert audit.verify() == 5


def test_processes_append_to_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    context = get_context("spawn")
    processes = [context.Process(target=append_some, args=(path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert Audit(path).verify() == 30
