"""The contract: one set of rules for files and for requests."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raymill.data.casts import cast
from raymill.data.contract import ColumnRule, Contract, conform
from raymill.errors import DataError, SpecError

BAD = [  # field, value of a request, the same as text in a file, what the error says
    ("age", None, None, "age must not be empty"),
    ("age", "x", "x", "age must be a whole number"),
    ("age", 1.5, "1.5", "age must be a whole number"),
    ("age", -1, "-1", "age must be >= 0"),
    ("age", 121, "121", "age must be <= 120"),
    ("pay", "much", "much", "pay must be a finite number"),
    ("pay", float("inf"), "inf", "pay must be a finite number"),
    ("city", "Paris", "Paris", "city must be one of Rome, Oslo"),
    ("city", "", "-", "city must be one of Rome, Oslo"),
    ("zip", "12", "12", r"zip must match \d{3}"),
    ("at", "soon", "soon", "at must be an ISO time like"),
    ("at", "2025-12-31", "2025-12-31", "at must be >= 2026-01-01"),
    ("member", "maybe", "maybe", "member must be true or false"),
]


def as_table(*rows: dict[str, Any]) -> pa.Table:
    """Rows as a CSV gives them: all text."""
    names = list(rows[0])
    return pa.table({name: pa.array([None if row[name] is None else str(row[name])
                                     for row in rows], pa.string()) for name in names})


@pytest.mark.parametrize(("field", "value", "text", "says"), BAD)
def test_a_request_and_a_file_break_the_same_rules(
    contract: Contract, good_row: dict[str, Any], field: str, value: Any, text: str | None,
    says: str,
) -> None:
    with pytest.raises(DataError) as caught:
        contract.from_rows([good_row, good_row | {field: value}])
    (problem,) = caught.value.problems
    assert problem.rule.startswith(says)
    assert problem.where == f"rows[1].{field}"

    table = as_table(good_row, good_row | {field: text})
    done = conform(table, contract)
    assert [(v.row, v.column) for v in done.bad] == [(2, field)]
    assert done.bad[0].rule.startswith(says)
    assert len(done.table) == 1


def test_good_rows_come_out_typed_and_alike(
    contract: Contract, good_row: dict[str, Any]
) -> None:
    request = contract.from_rows([good_row])
    done = conform(as_table(good_row), contract)
    assert not done.bad
    assert done.table.equals(request)
    assert done.table.schema.field("at").type == pa.timestamp("us")


def test_an_unknown_field_of_a_request_is_refused_and_of_a_file_is_left_out(
    contract: Contract, good_row: dict[str, Any]
) -> None:
    with pytest.raises(DataError) as caught:
        contract.from_rows([good_row | {"agee": 3}])
    assert "unknown field 'agee'" in caught.value.problems[0].rule
    done = conform(as_table(good_row | {"agee": 3}), contract)
    assert not done.bad
    assert "agee" not in done.table.column_names


def test_a_missing_column_breaks_every_row(contract: Contract, good_row: dict[str, Any]) -> None:
    table = as_table(good_row).drop_columns(["age"])
    done = conform(table, contract)
    assert len(done.table) == 0
    assert (done.bad[0].row, done.bad[0].column) == (0, "age")


def test_the_target_and_the_key_are_wanted_in_training_only(
    contract: Contract, good_row: dict[str, Any]
) -> None:
    assert not conform(as_table(good_row), contract).bad
    wanted = {v.column for v in conform(as_table(good_row), contract, require_target=True).bad}
    assert wanted == {"y", "id"}


def test_a_nullable_field_may_be_left_out_of_a_request(
    contract: Contract, good_row: dict[str, Any]
) -> None:
    del good_row["pay"]
    assert contract.from_rows([good_row])["pay"].to_pylist() == [None]


def test_values_of_sensitive_columns_stay_out_of_messages(
    contract: Contract, good_row: dict[str, Any]
) -> None:
    with pytest.raises(DataError) as caught:
        contract.from_rows([good_row | {"zip": "secret"}])
    assert "secret" not in str(caught.value)


def test_many_problems_are_counted_not_listed(
    contract: Contract, good_row: dict[str, Any]
) -> None:
    with pytest.raises(DataError) as caught:
        contract.from_rows([good_row | {"age": -1}] * 80)
    assert len(caught.value.problems) == 51
    assert caught.value.problems[-1].rule == "30 more like these"


def test_numbers_keep_their_value_in_whatever_type_they_come(contract: Contract) -> None:
    rule = {"x": ColumnRule(type="int64", kind="numeric", nullable=True)}
    one = Contract(target="y", task="regression",
                   columns=rule | {"y": ColumnRule(type="float64", kind="numeric")})
    for array in (pa.array([1.0, None]), pa.array([1, None], pa.int8()), pa.array(["1", None]),
                  pa.array(["1.0", None]), pa.array(["1", None]).dictionary_encode(),
                  pa.array([1.0, float("nan")])):
        assert conform(pa.table({"x": array}), one).table["x"].to_pylist() == [1, None]


def test_a_contract_written_and_read_is_the_same(contract: Contract, tmp_path: Path) -> None:
    path = tmp_path / "contract.yaml"
    path.write_text(contract.to_yaml())
    again = Contract.read(path)
    assert again == contract
    assert again.version == contract.version


def test_any_changed_rule_changes_the_version(contract: Contract) -> None:
    state = contract.model_dump()
    state["columns"]["age"]["max"] = 119
    assert Contract.model_validate(state).version != contract.version


@pytest.mark.parametrize(("old", "new", "says"), [
    ("type: int64", "type: int65", "columns.id.type"),
    ("target: y", "target: z", "target names a column"),
    ("max: 120", "maxx: 120", "did you mean 'max'"),
    ("pattern: '\\d{3}'", "pattern: '('", "a pattern is a regular expression"),
    ("kind: datetime", "kind: image", "kind image needs type binary"),
    ("task: binary", "task: multiclass", "binary has 2 classes and multiclass more"),
])
def test_a_bad_contract_file_is_refused_with_its_place(
    contract: Contract, tmp_path: Path, old: str, new: str, says: str
) -> None:
    text = contract.to_yaml()
    assert old in text
    path = tmp_path / "contract.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(SpecError) as caught:
        Contract.read(path)
    assert any(says in str(problem) for problem in caught.value.problems)
    assert caught.value.problems[0].where.startswith(f"{path}:")


def test_one_row_is_checked_within_a_fraction_of_a_millisecond() -> None:
    columns = {f"n{i}": ColumnRule(type="float64", kind="numeric", min=-5) for i in range(6)}
    columns |= {f"c{i}": ColumnRule(type="string", kind="categorical", values=["a", "b"],
                                    closed=True, nullable=True) for i in range(8)}
    columns["y"] = ColumnRule(type="string", kind="categorical", values=["0", "1"], closed=True)
    contract = Contract(target="y", task="binary", classes=["0", "1"], columns=columns)
    rows = [{f"n{i}": 1.5 for i in range(6)} | {f"c{i}": "a" for i in range(8)}]
    best = float("inf")
    for _ in range(200):
        began = time.perf_counter()
        contract.from_rows(rows)
        best = min(best, time.perf_counter() - began)
    assert best < 300e-6  # about 60 us on an idle core


@pytest.mark.parametrize("pattern", [r"(?=a)b", r"(a)\1", r"\pL", "("])
def test_a_pattern_that_one_of_the_two_engines_does_not_know_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="a pattern is a regular expression of RE2"):
        ColumnRule(type="string", kind="categorical", pattern=pattern)


@pytest.mark.parametrize(("pattern", "text", "fits"), [
    (r"\d+", "12", True), (r"\d+", "\u0661", False), (r"\w+", "\u00e9", False), ("a|b", "ab", False),
    ("a", "a\n", False), (".", "\u00e9", True),
])
def test_a_pattern_means_the_same_for_files_and_requests(
    pattern: str, text: str, fits: bool
) -> None:
    rule = ColumnRule(type="string", kind="categorical", pattern=pattern)
    contract = Contract(target="y", task="regression", columns={
        "x": rule, "y": ColumnRule(type="float64", kind="numeric")})
    assert (not conform(pa.table({"x": [text]}), contract).bad) == fits
    if fits:
        contract.from_rows([{"x": text}])
    else:
        with pytest.raises(DataError, match="x must match"):
            contract.from_rows([{"x": text}])


@pytest.mark.parametrize(("low", "high", "kept"), [
    (0, None, [0, 1, 2**53 + 1, 2**63 - 1]), (0.5, 1.5, [1]), (None, 2.0**53, [-(2**63), 0, 1]),
    (-1e30, 1e30, [-(2**63), 0, 1, 2**53 + 1, 2**63 - 1]), (1e30, None, []), (None, -1e30, []),
])
def test_bounds_of_whole_numbers_hold_for_large_ones(
    low: float | None, high: float | None, kept: list[int]
) -> None:
    contract = Contract(target="y", task="regression", columns={
        "x": ColumnRule(type="int64", kind="numeric", min=low, max=high),
        "y": ColumnRule(type="float64", kind="numeric")})
    table = pa.table({"x": pa.array([-(2**63), 0, 1, 2**53 + 1, 2**63 - 1], pa.int64())})
    assert conform(table, contract).table["x"].to_pylist() == kept


def test_the_text_of_a_number_is_its_own() -> None:
    numbers = pa.array([1.0, 1.5, None, -0.0, float("nan"), float("inf"), 1e30, -3.0])
    text, _ = cast(numbers, "string")
    assert text.to_pylist() == ["1", "1.5", None, "0", None, "inf", "1e+30", "-3"]
    assert [cast(numbers.slice(i, 1), "string")[0][0].as_py()
            for i in range(len(numbers))] == text.to_pylist()
