from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raymill.data.columns import ColumnReader
from raymill.data.conform import conform
from raymill.data.contract import ColumnRule, Contract
from raymill.errors import DataError

COLUMNS = {
    "x": ColumnRule(type="float64", kind="numeric", min=-1, max=10),
    "free": ColumnRule(type="float64", kind="numeric", nullable=True),
    "n": ColumnRule(type="int64", kind="numeric", min=0.5, max=7.5),
    "big": ColumnRule(type="int64", kind="numeric", nullable=True),
    "level": ColumnRule(type="int64", kind="categorical", values=[1, 2], closed=True),
    "code": ColumnRule(type="string", kind="categorical", pattern="[A-Z]{2}"),
    "y": ColumnRule(type="float64", kind="numeric"),
}
GOOD: dict[str, list[Any]] = {"x": [-1.0, 10.0], "free": [None, 1e300], "n": [1, 7],
                              "big": [2**63 - 1, -(2**63)], "level": [1, 2], "code": ["AB", "CD"]}


@pytest.fixture(scope="module")
def contract() -> Contract:
    return Contract(target="y", task="regression", columns=COLUMNS)


@pytest.mark.parametrize(
    "change",
    [
        {}, {"x": [-1.1, 0]}, {"x": [1.0, 10.1]}, {"x": [float("nan"), 1]}, {"x": [1, 2]},
        {"x": [None, 1.0]}, {"free": [float("inf"), 1]}, {"free": [float("-inf"), None]},
        {"free": [float("nan"), 1.0]}, {"n": [0, 1]}, {"n": [1, 8]}, {"n": [1.0, 2.0]}, {"n": [1.5, 2]},
        {"level": [1, 3]}, {"code": ["AB", "abc"]}, {"code": [None, "AB"]}, {"x": ["1", "2"]},
        {"big": [2.0**63, 1]},
    ],
    ids=str,
)
def test_it_says_what_conform_says(contract: Contract, change: dict[str, Any]) -> None:
    table = pa.table(GOOD | change)
    slow = conform(table, contract)
    parted = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    for each in (table, parted):
        if not slow.bad:
            assert ColumnReader(contract).read(each).equals(slow.table)
            continue
        with pytest.raises(DataError) as error:
            ColumnReader(contract).read(each)
        assert [p.rule for p in error.value.problems] == [v.rule for v in slow.bad]


def test_a_missing_column_is_named(contract: Contract) -> None:
    with pytest.raises(DataError, match="the column 'n' must exist"):
        ColumnReader(contract).read(pa.table(GOOD).drop_columns("n"))


def test_no_rows_are_no_fault(contract: Contract) -> None:
    table = pa.table(GOOD).cast(pa.schema([(n, COLUMNS[n].arrow) for n in GOOD]))
    assert len(ColumnReader(contract).read(table.slice(0, 0))) == 0


def test_many_good_rows_stay_as_they_are(contract: Contract) -> None:
    rng = np.random.default_rng(0)
    table = pa.table({
        "x": rng.uniform(-1, 10, 500), "free": rng.normal(size=500), "n": rng.integers(1, 8, 500),
        "big": rng.integers(-100, 100, 500), "level": rng.integers(1, 3, 500), "code": ["AB"] * 500})
    assert ColumnReader(contract).read(table).equals(table)
