"""Files cut into chunks: every row once, with its own number, wherever the cuts fall."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raymill.data import chunks
from raymill.data.chunks import Scan, scan
from raymill.data.conform import ROW
from raymill.data.read import Raw, read_chunk
from raymill.data.source import discover

FIELDS = ["plain", '"a, b"', '"two\nlines"', '"say ""no"""', "", "é", '"ends\r\nhere"']


def here(function: Callable[..., Any], arguments: Iterable[Any], said: Any = None) -> list[Any]:
    """`remote.gather`, in this process."""
    return [function(*item) for item in arguments]


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "gather", here)


def scanned(path: Path) -> Scan:
    (found,) = scan(discover(str(path), path.parent))
    return found


def read_all(found: Scan) -> list[Raw]:
    return [raw for chunk in found.chunks for raw in read_chunk(chunk)]


def rows_of(found: Scan) -> list[tuple[int, dict[str, Any]]]:
    rows = [row for raw in read_all(found) for row in raw.table.to_pylist()]
    return [(row.pop(ROW), row) for row in rows]


@pytest.mark.parametrize("piece", [7, 16, 61, 500, 10**6])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_csv_file_cut_anywhere_gives_each_row_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, end: str
) -> None:
    path = tmp_path / "a.csv"
    lines = ["n,text"] + [f"{i},{FIELDS[i % len(FIELDS)]}" for i in range(60)]
    lines.insert(20, "")  # an empty line is no row
    path.write_bytes((end.join(lines) + (end if piece % 2 else "")).encode())
    whole = scanned(path)
    expected = rows_of(whole)
    assert [number for number, _ in expected] == list(range(1, 61))
    assert [row["n"] for _, row in expected] == [str(i) for i in range(60)]
    monkeypatch.setattr(chunks, "PIECE", piece)
    cut = scanned(path)
    assert rows_of(cut) == expected
    assert cut.rows == 60
    assert len(cut.chunks) > 1 or piece >= 500


@pytest.mark.parametrize("piece", [9, 40, 10**6])
def test_a_jsonl_file_cut_anywhere_gives_each_row_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n\n".join(f'{{"n": {i}, "q": "\\""}}' for i in range(40)))
    monkeypatch.setattr(chunks, "PIECE", piece)
    found = rows_of(scanned(path))
    assert [(number, row["n"]) for number, row in found] == [(i + 1, i) for i in range(40)]


def test_row_groups_of_parquet_are_numbered_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": range(1000)}), path, row_group_size=100)
    monkeypatch.setattr(chunks, "ROW_GROUP_BYTES", 1500)
    found = scanned(path)
    assert len(found.chunks) > 3
    assert [(number, row["n"]) for number, row in rows_of(found)] == [
        (i + 1, i) for i in range(1000)]


def test_ragged_rows_are_named_and_the_others_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n3\n5,6\n7,8,9\n10,11\n")
    raws = read_all(scanned(path))
    assert [row["a"] for raw in raws for row in raw.table.to_pylist()] == ["1", "5", "10"]
    bad = [violation for raw in raws for violation, _ in raw.bad]
    assert [(v.row, v.got) for v in bad] == [(2, "1"), (4, "3")]


def test_stray_quotes_are_read_in_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + '5" pipe,2\n' * 21)
    monkeypatch.setattr(chunks, "PIECE", 16)
    assert len(scanned(path).chunks) == 1


def test_a_quote_left_open_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,2\n3,"4\n5,6\n')
    (problem,) = scanned(path).problems
    assert problem.where == "a.csv"
    assert "quoted field must be closed" in problem.rule


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_delimiters_are_found(tmp_path: Path, sign: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"\ufeffa{sign}b\n1{sign}2\n")
    found = scanned(path)
    assert found.columns == ("a", "b")
    assert rows_of(found)[0][1]["b"] == "2"


def test_the_digest_changes_with_any_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "1,2\n" * 50)
    monkeypatch.setattr(chunks, "PIECE", 16)
    before = scanned(path).sha256
    assert scanned(path).sha256 == before
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(bytes(raw))
    assert scanned(path).sha256 != before
