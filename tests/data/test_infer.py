"""What is inferred of data: types, kinds, the task; and said where it isn't obvious."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raymill.data import chunks, infer
from raymill.data.contract import Contract
from raymill.data.infer import Inferred
from raymill.data.source import discover
from raymill.data.spec import DataSpec
from raymill.errors import DataError


def here(function: Callable[..., Any], arguments: Iterable[Any], said: Any = None) -> list[Any]:
    """`remote.gather`, in this process."""
    return [function(*item) for item in arguments]


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "gather", here)
    monkeypatch.setattr(infer, "gather", here)


def inferred(folder: Path, data: dict[str, list[Any]], positive: str | None = None,
             **spec: Any) -> Inferred:
    """Of the columns as CSV in two files, with a target unless there is one."""
    rows = len(next(iter(data.values())))
    data = {"y": ["no", "yes", "no"] * (rows // 3) + ["no"] * (rows % 3)} | data
    lines = [",".join("" if v is None else str(v) for v in row)
             for row in zip(*data.values(), strict=True)]
    for name, part in (("a.csv", lines[: rows // 2]), ("b.csv", lines[rows // 2 :])):
        (folder / name).write_text("\n".join([",".join(data), *part]) + "\n")
    files = discover("*.csv", folder)
    return infer.infer(files, DataSpec(**({"source": "*.csv", "target": "y"} | spec)),
                       positive=positive)


def rule(contract: Contract, name: str = "x") -> tuple[str, str, bool]:
    found = contract.columns[name]
    return found.type, found.kind, found.nullable


@pytest.mark.parametrize(("values", "expected"), [
    ([1, 2, 3, 2] * 5, ("int64", "numeric", False)),
    ([1, 2.5, 3, None] * 5, ("float64", "numeric", True)),
    ([1, None, 3, 4] * 5, ("int64", "numeric", True)),
    (["1e3", "-.5", "+2", "7."] * 5, ("float64", "numeric", False)),
    (["true", "FALSE"] * 10, ("bool", "categorical", False)),
    (["red", "blue"] * 10, ("string", "categorical", False)),
    (["007", "123"] * 10, ("string", "categorical", False)),
    (["2026-01-31", "2026-02-01T12:30:00Z"] * 10, ("timestamp", "datetime", False)),
    ([1, 2, "red", 3] * 5, ("string", "categorical", False)),
    ([5] * 20, ("int64", "ignore", False)),
    ([None] * 20, ("string", "ignore", True)),
])
def test_types_and_kinds(
    tmp_path: Path, values: list[Any], expected: tuple[str, str, bool]
) -> None:
    helper = ["a", "b"] * (len(values) // 2)
    assert rule(inferred(tmp_path, {"x": values, "z": helper}).contract) == expected


def test_a_few_odd_values_are_noted_and_break_the_contract(tmp_path: Path) -> None:
    found = inferred(tmp_path, {"x": [*range(300), "oops"] + [7] * 99})
    assert found.contract.columns["x"].type == "int64"
    assert any("'oops'" in line and "break the contract" in line for line in found.notes)


def test_identifiers_and_free_text_are_not_shown_to_the_model(tmp_path: Path) -> None:
    n = 1500
    found = inferred(tmp_path, {"text": [f"t{i * 7919 % n}" for i in range(n)],
                                "number": list(range(n)), "x": [i % 50 for i in range(n)]})
    assert found.contract.features == ["x"]
    assert sum("not shown to the model" in line for line in found.notes) == 2


def test_a_stated_kind_wins(tmp_path: Path) -> None:
    found = inferred(tmp_path, {"x": [1, 2, 3, 4] * 5, "z": [7] * 20},
                     columns={"x": "categorical", "z": "numeric"})
    assert rule(found.contract) == ("int64", "categorical", False)
    assert rule(found.contract, "z") == ("int64", "numeric", False)
    with pytest.raises(DataError, match="'z' is datetime"):
        inferred(tmp_path, {"x": [1, 2] * 5, "z": [7] * 10}, columns={"z": "datetime"})


@pytest.mark.parametrize(("target", "task", "classes"), [
    (["no", "yes", "no"] * 10, "binary", ["no", "yes"]),
    (["yes", "no", "yes"] * 10, "binary", ["yes", "no"]),
    (["true", "false", "false"] * 10, "binary", ["false", "true"]),
    ([0, 1, 0] * 10, "binary", ["0", "1"]),
    (["c", "a", "b"] * 10, "multiclass", ["a", "b", "c"]),
    ([10, 9, 2] * 10, "multiclass", ["2", "9", "10"]),
    (list(range(30)), "regression", None),
    ([0.5, 1.5, 2.5] * 10, "regression", None),
])
def test_the_task_follows_from_the_target(
    tmp_path: Path, target: list[Any], task: str, classes: list[str] | None
) -> None:
    contract = inferred(tmp_path, {"x": [i % 7 for i in range(30)], "y": target}).contract
    assert (contract.task, contract.classes) == (task, classes)


def test_a_stated_task_and_positive_class_win(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {"x": [i % 7 for i in range(30)], "y": [1, 2, 3] * 10}
    assert inferred(tmp_path, columns, task="regression").contract.task == "regression"
    with pytest.raises(DataError, match="a binary target has 2"):
        inferred(tmp_path, columns, task="binary")
    words = columns | {"y": ["no", "yes", "no"] * 10}
    assert inferred(tmp_path, words, positive="no").contract.classes == ["yes", "no"]
    with pytest.raises(DataError, match=r"objective\.positive"):
        inferred(tmp_path, words, positive="maybe")


@pytest.mark.parametrize(("columns", "spec", "says"), [
    ({"x": [1, 2] * 5}, {"target": "z"}, "data.target must name a column"),
    ({"x": [1, 2] * 5}, {"drop": ["z"]}, "data.drop must name a column"),
    ({"x": [1, 2] * 5, "y": ["no"] * 10}, {}, "at least two different values"),
    ({"x": [1] * 10}, {}, "of use to the model"),
    ({"x": [1, 2] * 5}, {"task": "regression"}, "a regression's target holds numbers"),
])
def test_what_can_not_be_is_refused(
    tmp_path: Path, columns: dict[str, list[Any]], spec: dict[str, Any], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        inferred(tmp_path, columns, **spec)


def test_the_contract_says_what_was_seen(tmp_path: Path) -> None:
    text = inferred(tmp_path, {"x": [1, None, 3, 4] * 5}).contract.to_yaml()
    assert "# seen 1 .. 4, 3 different, 5 of 20 empty" in text


def test_arrow_types_that_no_model_reads_are_left_out(tmp_path: Path) -> None:
    table = pa.table({"x": pa.array([1, 2, 3] * 4, pa.uint8()), "list": [[1, 2]] * 12,
                      "word": pa.array(["a", "b", "c"] * 4).dictionary_encode(),
                      "when": pa.array([0, 10**15, 10**17] * 4, pa.timestamp("ns", "Europe/Oslo")),
                      "y": [True, False, False] * 4})
    pq.write_table(table, tmp_path / "a.parquet")
    found = infer.infer(discover("a.parquet", tmp_path), DataSpec(source="-", target="y"))
    assert found.contract.features == ["x", "word", "when"]
    assert found.contract.classes == ["false", "true"]
    assert any("list<" in line for line in found.notes)


def test_long_texts_that_seldom_repeat_are_read_and_others_stay_what_they_were(
    tmp_path: Path
) -> None:
    numbers = range(2400)
    found = inferred(tmp_path, {
        "x": [f"the box {n} is late by {n % 7} days" for n in numbers],
        "name": [f"Jo Smith{n}" for n in numbers],
        "reason": [f"one of the usual reasons {n % 9}" for n in numbers],
    })
    kinds = {name: column.kind for name, column in found.contract.columns.items()}
    assert kinds == {"x": "text", "name": "ignore", "reason": "categorical", "y": "categorical"}
    (said,) = (note for note in found.notes if "x: read as free text (8 words" in note)
    assert said.endswith("kind in the contract, or data.columns without one, can say otherwise")
    stated = inferred(tmp_path, {"x": ["red", "blue"] * 10}, columns={"x": "text"})
    assert rule(stated.contract) == ("string", "text", False)
    with pytest.raises(DataError, match="'x' is text"):
        inferred(tmp_path, {"x": [1, 2] * 10}, columns={"x": "text"})
