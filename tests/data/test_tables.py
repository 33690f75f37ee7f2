"""Rows to predict: from files and standard input, as tables and as requests."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raymill.data.contract import ColumnRule, Contract
from raymill.data.tables import json_rows, read_rows
from raymill.errors import DataError

FIELDS = ("age", "pay", "city", "zip", "at", "member")


def csv_of(*rows: dict[str, Any]) -> str:
    lines = [",".join(rows[0]), *(",".join(str(v) for v in row.values()) for row in rows)]
    return "\n".join(lines) + "\n"


def test_every_format_gives_the_same_rows(
    contract: Contract, good_row: dict[str, Any], tmp_path: Path
) -> None:
    expected = contract.from_rows([good_row, good_row])
    extra = good_row | {"y": "never looked at", "more": 1}
    (tmp_path / "a.csv").write_text(csv_of(extra, extra))
    (tmp_path / "a.jsonl").write_text(json.dumps(good_row) + "\n\n" + json.dumps(extra))
    pq.write_table(pa.Table.from_pylist([extra, extra]), tmp_path / "a.parquet")
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        assert read_rows(tmp_path / name, contract).equals(expected)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_standard_input_is_told_by_its_first_bytes(
    contract: Contract, good_row: dict[str, Any], form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([good_row]), sink)
    data = {"csv": csv_of(good_row).encode(), "jsonl": json.dumps(good_row).encode(),
            "parquet": sink.getvalue()}[form]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert read_rows("-", contract).equals(contract.from_rows([good_row]))


def test_empty_input_is_refused(contract: Contract, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    with pytest.raises(DataError, match="must hold rows"):
        read_rows("-", contract)


def test_rows_that_break_the_contract_are_named(
    contract: Contract, good_row: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(csv_of(good_row, good_row | {"age": "old"}) + "1,2\n")
    with pytest.raises(DataError) as caught:
        read_rows(path, contract)
    assert {problem.where for problem in caught.value.problems} == {"a.csv row 2", "a.csv row 3"}
    path.write_text(csv_of({k: v for k, v in good_row.items() if k != "age"}))
    with pytest.raises(DataError, match="the column 'age' must exist"):
        read_rows(path, contract)


def test_a_table_as_requests_comes_back_the_same(
    contract: Contract, good_row: dict[str, Any]
) -> None:
    table = contract.from_rows([good_row, good_row | {"pay": None, "city": None}])
    rows = json_rows(table)
    assert "pay" not in rows[1]
    assert contract.from_rows(json.loads(json.dumps(rows))).equals(table)


def test_images_travel_as_base64(png: Callable[..., bytes]) -> None:
    contract = Contract(target="y", task="regression", columns={
        "picture": ColumnRule(type="binary", kind="image"),
        "y": ColumnRule(type="float64", kind="numeric")})
    table = pa.table({"picture": [png(1)]})
    rows = json_rows(table)
    assert contract.from_rows(rows).equals(table)
    with pytest.raises(DataError, match="must be an image"):
        contract.from_rows([{"picture": rows[0]["picture"][:40]}])
