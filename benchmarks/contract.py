"""Rows a second that the contract checks, beside pandera, or a floor written by hand without it.

A table of 8,192 rows and 20 columns, all of it good: types, nulls, ranges and domains are checked.
pandera (lazy, pandas backend) is the reference where it is installed; else the bare
pyarrow.compute calls, one a rule, with nothing kept or named.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.harness import Figure, best_of, sized
from raymill.data.conform import conform
from raymill.data.contract import Contract

NUMBERS, CATEGORIES = 14, 6
DOMAIN = [f"c{i}" for i in range(50)]


def table(rows: int) -> pa.Table:
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {
        f"x{i}": rng.uniform(0, 100, rows).round(3) for i in range(NUMBERS)
    }
    for i in range(CATEGORIES - 1):
        columns[f"c{i}"] = np.array(DOMAIN)[rng.integers(0, len(DOMAIN), rows)]
    columns["target"] = np.array(["no", "yes"])[rng.integers(0, 2, rows)]
    return pa.table(columns)


def contract() -> Contract:
    number = {"type": "float64", "kind": "numeric", "nullable": False, "min": 0, "max": 100}
    category = {"type": "string", "kind": "categorical", "nullable": False, "values": DOMAIN,
                "closed": True}
    columns: dict[str, Any] = {f"x{i}": number for i in range(NUMBERS)}
    columns |= {f"c{i}": category for i in range(CATEGORIES - 1)}
    columns["target"] = category | {"values": ["no", "yes"]}
    return Contract.model_validate({
        "columns": columns, "target": "target", "task": "binary", "classes": ["no", "yes"],
        "key": [],
    })


def by_hand(rows: pa.Table) -> bool:
    """The floor: every rule once, no names, no places."""
    good = True
    for name in rows.column_names:
        column = rows[name]
        good &= column.null_count == 0
        if pa.types.is_floating(column.type):
            ends = pc.min_max(column).as_py()
            good &= ends["min"] >= 0 and ends["max"] <= 100
        else:
            good &= pc.all(pc.is_in(column, pa.array([*DOMAIN, "no", "yes"]))).as_py()
    return good


def with_pandera(rows: pa.Table) -> Callable[[], Any]:
    import pandera.pandas as pandera

    columns = {
        name: pandera.Column(
            float if pa.types.is_floating(rows[name].type) else str,
            pandera.Check.in_range(0, 100) if name.startswith("x")
            else pandera.Check.isin([*DOMAIN, "no", "yes"]),
        )
        for name in rows.column_names
    }
    schema, frame = pandera.DataFrameSchema(columns), rows.to_pandas()
    return lambda: schema.validate(frame, lazy=True)


def rate(check: Callable[[], Any], rows: int, times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        check()
    return rows * times / (time.perf_counter() - started)


def run() -> Figure:
    rows, times = 8192, sized(50, 2)
    data, rules = table(rows), contract()
    if conform(data, rules, require_target=True).bad:
        raise RuntimeError("the contract refused good rows")
    floor = best_of(3, lambda: rate(lambda: by_hand(data), rows, times))
    ours = best_of(
        3, lambda: rate(lambda: conform(data, rules, require_target=True), rows, times)
    )
    details = {"rows": rows, "columns": data.num_columns, "by_hand_rows_per_s": floor}
    if importlib.util.find_spec("pandera") is not None:
        check = with_pandera(data)
        peer = best_of(3, lambda: rate(check, rows, times))
        return Figure(
            name="contract", unit="rows/s", ours=ours, reference=peer, details=details,
            reference_is="pandera, lazy", goal="ratio >= 5", holds=ours / peer >= 5,
        )
    return Figure(
        name="contract", unit="rows/s", ours=ours, reference=floor, details=details,
        reference_is="bare pyarrow.compute", goal="ratio >= 0.5", holds=ours / floor >= 0.5,
    )
