"""Tables checked against a contract: good rows typed, bad rows named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .casts import cast
from .images import problem_of
from .rules import MEANS, ColumnRule, anchored

if TYPE_CHECKING:
    from .contract import Contract

FILE, ROW = "__file", "__row"  # hidden columns: index of the file, data row in it from 1
INT_MIN, INT_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True)
class Violation:
    """A value that breaks a rule. `row` counts from 1 and leaves a header out; `index` is the
    row's place in the table that was checked, from 0 (-1: the table as a whole)."""

    row: int
    column: str
    rule: str
    got: str
    index: int = -1


@dataclass(frozen=True)
class Conformed:
    """The good rows, typed, in the contract's order of columns; and what is wrong with the others.

    `kept` are the indices of the good rows in the table given; None when all are.
    """

    table: pa.Table
    bad: list[Violation]
    kept: NDArray[np.int64] | None = None


def conform(
    table: pa.Table, contract: Contract, *, require_target: bool = False
) -> Conformed:
    """Check and type `table`. Columns that the contract doesn't name are left out, and without
    `require_target`, as for predictions, all but the features.

    `__row` in the table, where it is, gives the rows' numbers. A column that is missing is a
    violation of the table (row 0) unless the contract ignores it.
    """
    rows = table[ROW].to_numpy() if ROW in table.column_names else None
    good = np.ones(len(table), bool)
    found: list[Violation] = []
    columns: dict[str, pa.Array] = {}
    for name in contract.columns if require_target else contract.features:
        rule = contract.columns[name]
        if name not in table.column_names:
            if name in contract.features or name in contract.key or name == contract.target:
                found.append(Violation(0, name, f"the column {name!r} must exist", "none"))
                good[:] = False
            columns[name] = pa.nulls(len(table), rule.arrow)
            continue
        array, broken = check_column(table[name].combine_chunks(), name, rule)
        columns[name] = array
        for index, text, got in broken:
            good[index] = False
            number = int(rows[index]) if rows is not None else index + 1
            found.append(Violation(number, name, text, got, index))
    for hidden in (FILE, ROW):
        if hidden in table.column_names:
            columns[hidden] = table[hidden].combine_chunks()
    typed = pa.table(columns)
    if not found:
        return Conformed(typed, [])
    found.sort(key=lambda violation: violation.index)
    kept = np.flatnonzero(good)
    return Conformed(typed.take(pa.array(kept)), found, kept)


def check_column(
    array: pa.Array, name: str, rule: ColumnRule
) -> tuple[pa.Array, list[tuple[int, str, str]]]:
    """The column typed, and (index, rule, got) for each value that breaks a rule."""
    typed, untypable = cast(array, rule.type)
    broken = [(int(i), f"{name} must be {MEANS[rule.type]}", rule.show(array[int(i)].as_py()))
              for i in untypable]
    if typed.null_count > len(untypable) and not rule.nullable:
        nulls = np.flatnonzero(pc.is_null(typed).to_numpy(zero_copy_only=False))
        broken += [(int(i), f"{name} must not be empty", "null")
                   for i in np.setdiff1d(nulls, untypable)]
    for mask, text in _rules(typed, name, rule):
        if pc.any(mask).as_py():
            broken += [(int(i), text, rule.show(typed[int(i)].as_py()))
                       for i in np.flatnonzero(pc.fill_null(mask, False).to_numpy(False))]
    if rule.kind == "image":
        broken += [(i, f"{name} must be an image that can be decoded", why)
                   for i, data in enumerate(typed.to_pylist())
                   if data is not None and (why := problem_of(data)) is not None]
    return typed, broken


def _rules(typed: pa.Array, name: str, rule: ColumnRule) -> Iterator[tuple[Any, str]]:
    """A mask, true where the rule is broken, for each of the column's rules."""
    if rule.type == "float64":
        yield pc.is_inf(typed), f"{name} must be {MEANS['float64']}"
    if rule.min is not None:
        yield _below(typed, rule), f"{name} must be >= {rule.min}"
    if rule.max is not None:
        yield _above(typed, rule), f"{name} must be <= {rule.max}"
    if rule.closed and rule.values is not None:
        domain = cast(pa.array([str(value).lower() if isinstance(value, bool) else str(value)
                                for value in rule.values]), rule.type)[0]
        inside = pc.or_(pc.is_in(typed, domain), pc.is_null(typed))
        shown = ", ".join(map(str, rule.values[:8])) + (", ..." if len(rule.values) > 8 else "")
        yield pc.invert(inside), f"{name} must be one of {shown}"
    if rule.pattern is not None:
        matches = pc.match_substring_regex(typed, anchored(rule.pattern))
        yield pc.invert(matches), f"{name} must match {rule.pattern}"


def _below(typed: pa.Array, rule: ColumnRule) -> Any:
    """True where below `min`; whole numbers as such, since floats don't hold those over 2**53."""
    if rule.type != "int64":
        return pc.less(typed, pa.scalar(rule.low))
    if rule.low <= INT_MIN:
        return pa.scalar(False)
    return pc.less_equal(typed, pa.scalar(min(ceil(rule.low) - 1, INT_MAX), pa.int64()))


def _above(typed: pa.Array, rule: ColumnRule) -> Any:
    if rule.type != "int64":
        return pc.greater(typed, pa.scalar(rule.high))
    if rule.high >= INT_MAX:
        return pa.scalar(False)
    return pc.greater_equal(typed, pa.scalar(max(floor(rule.high) + 1, INT_MIN), pa.int64()))
