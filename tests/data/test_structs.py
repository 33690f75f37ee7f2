from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from raymill.data.contract import ColumnRule, Contract
from raymill.data.structs import StructReader, Structs
from raymill.errors import DataError

COLUMNS = {
    "x": ColumnRule(type="float64", kind="numeric", min=-1, max=10),
    "free": ColumnRule(type="float64", kind="numeric", nullable=True),
    "n": ColumnRule(type="int64", kind="numeric", min=0.5, max=7.5),
    "flag": ColumnRule(type="bool", kind="numeric", nullable=True),
    "colour": ColumnRule(type="string", kind="categorical", values=["red", "blue"], closed=True),
    "code": ColumnRule(type="string", kind="categorical", pattern="[A-Z]{2}", nullable=True),
    "level": ColumnRule(type="int64", kind="categorical", values=[1, 2], closed=True),
    "when": ColumnRule(type="timestamp", kind="datetime", min="2020-01-01", nullable=True),
    "class": ColumnRule(type="string", kind="categorical", nullable=True),
    "id": ColumnRule(type="string", kind="ignore"),
    "y": ColumnRule(type="float64", kind="numeric"),
}
GOOD = {"x": 1.5, "n": 3, "colour": "red", "level": 1}
VALUES = [None, True, False, 0, 1, 2, 7, 8, -1, 1.0, 2.5, 10.0, 10.5, 10**30, 2**63, -(2**63), "red",
          "green", "AB", "ab", "", "2021-01-01", "2019-01-01T00:00:00Z", [], [1], {}, {"a": 1}]


@pytest.fixture(scope="module")
def contract() -> Contract:
    return Contract(target="y", task="regression", columns=COLUMNS, drop=["gone"])


def body(rows: list[dict[str, Any]]) -> bytes:
    return msgspec.json.encode({"rows": rows})


def read(contract: Contract, rows: list[dict[str, Any]]) -> Any:
    """What the quick way makes of the rows, or the error that sends them the long way."""
    return StructReader(contract).decode(body(rows)).table()


def test_good_rows_are_what_the_long_way_makes_of_them(contract: Contract) -> None:
    rows = [GOOD, {**GOOD, "free": None, "flag": True, "code": "AB", "when": "2021-02-03T04:05:06",
                   "class": "a", "id": {"any": [1]}, "y": "not looked at", "gone": None}]
    assert read(contract, rows).equals(contract.from_rows(rows))


@pytest.mark.parametrize("name", [*COLUMNS, "gone", "unknown"])
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_the_quick_way_takes_nothing_that_the_long_way_refuses(
    contract: Contract, name: str, value: Any
) -> None:
    row = {**GOOD, name: value}
    try:
        quick = read(contract, [row])
    except DataError as error:
        with pytest.raises(DataError) as long:
            contract.from_rows([row])
        assert [p.rule for p in error.problems] == [p.rule for p in long.value.problems]
    except msgspec.MsgspecError:
        pass  # the long way judges
    else:
        assert quick.equals(contract.from_rows([row]))


def test_most_good_values_take_the_quick_way(contract: Contract) -> None:
    rng = np.random.default_rng(0)
    rows = [{"x": float(x), "n": int(n), "colour": "blue", "level": 2}
            for x, n in zip(rng.uniform(-1, 10, 50), rng.integers(1, 8, 50), strict=True)]
    assert read(contract, rows).equals(contract.from_rows(rows))


def test_rows_of_several_requests_are_joined_in_their_order(contract: Contract) -> None:
    reader = StructReader(contract)
    parts = [reader.decode(body([{**GOOD, "n": n}] * count)) for n, count in ((1, 2), (5, 1))]
    joined = Structs.join(parts)
    assert len(joined) == 3 and joined.table()["n"].to_pylist() == [1, 1, 5]
