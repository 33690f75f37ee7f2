"""Reference statistics of training rows."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from raymill.data.contract import ColumnRule, Contract
from raymill.data.profile import from_summaries
from raymill.data.stats import merge, of_table

N = 3000


def test_a_profile_says_what_the_rows_are_like() -> None:
    random = np.random.default_rng(0)
    number = ColumnRule(type="float64", kind="numeric", nullable=True)
    contract = Contract(target="y", task="binary", classes=["no", "yes"], columns={
        "x": number, "word": ColumnRule(type="string", kind="categorical"),
        "secret": ColumnRule(type="string", kind="categorical", sensitive=True),
        "y": ColumnRule(type="string", kind="categorical", values=["no", "yes"], closed=True)})
    x = random.normal(3, 2, N)
    table = pa.table({
        "x": pa.array([None, *x[1:]], pa.float64()), "word": random.choice(["a", "b"], N, p=[0.9, 0.1]),
        "secret": ["s"] * N, "y": random.choice(["no", "yes"], N)})
    seen = of_table(table.slice(0, 1000), contract)
    merge(seen, of_table(table.slice(1000), contract))
    found = from_summaries(seen, contract)
    json.dumps(found, allow_nan=False)
    assert found["rows"] == N
    column = found["columns"]["x"]
    assert (column["count"], column["nulls"], column["distinct"]) == (N, 1, N - 1)
    assert column["mean"] == pytest.approx(x[1:].mean())
    assert column["std"] == pytest.approx(x[1:].std())
    assert (column["min"], column["max"]) == (x[1:].min(), x[1:].max())
    assert column["edges"][10] == pytest.approx(np.median(x[1:]), abs=0.01)
    counts = table["word"].to_pylist()
    assert found["columns"]["word"]["top"] == [["a", counts.count("a")], ["b", counts.count("b")]]
    assert found["columns"]["word"]["other"] == 0
    assert "top" not in found["columns"]["secret"]
    assert dict(found["columns"]["y"]["top"])["yes"] == table["y"].to_pylist().count("yes")
