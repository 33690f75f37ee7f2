"""Columns of a request checked at little cost: what is plainly right needs no search for faults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from raymill.errors import DataError, Problem

from .conform import check_column, conform
from .rows import first_of
from .rules import ColumnRule

if TYPE_CHECKING:
    from .contract import Contract


class ColumnReader:
    """Compiled once from a contract; `read` says the same as `conform`, in less time.

    A number column of the contract's own type, without a null, is right when its least and its
    greatest value are.
    """

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._rules = [(name, contract.columns[name]) for name in contract.features]
        self._schema = pa.schema([(name, rule.arrow) for name, rule in self._rules])
        self._bounds = [_bounds(rule) for _, rule in self._rules]

    def read(self, table: pa.Table) -> pa.Table:
        """The features of `table`, typed.

        Raises:
            DataError: each problem's `where` is `rows[i].field`, i from 0; or `field` for a column
                that is missing.
        """
        table = table.combine_chunks()
        arrays = []
        for (name, rule), bounds in zip(self._rules, self._bounds, strict=True):
            at = table.schema.get_field_index(name)
            if at < 0:
                return self._searched(table)
            column = table.column(at)
            array = column.chunk(0) if column.num_chunks else pa.nulls(0, column.type)
            if bounds is None or not _within(array, rule, bounds):
                array, broken = check_column(array, name, rule)
                if broken:
                    return self._searched(table)
            arrays.append(array)
        return pa.Table.from_arrays(arrays, schema=self._schema)

    def _searched(self, table: pa.Table) -> pa.Table:
        conformed = conform(table, self._contract)
        if conformed.bad:
            raise DataError(first_of([
                Problem(rule=v.rule, got=v.got,
                        where=f"rows[{v.index}].{v.column}" if v.index >= 0 else v.column)
                for v in conformed.bad
            ]))
        return conformed.table


def _bounds(rule: ColumnRule) -> tuple[Any, Any] | None:
    """The least and the greatest value; None: the column has other rules than these."""
    if rule.type not in ("int64", "float64") or rule.kind == "image" or (
        rule.closed and rule.values is not None
    ):
        return None
    edge = np.finfo(np.float64).max
    return (-edge if rule.low is None else rule.low, edge if rule.high is None else rule.high)


def _within(array: pa.Array, rule: ColumnRule, bounds: tuple[Any, Any]) -> bool:
    """NaN is in no range, so a column with one is searched."""
    if array.type != rule.arrow or array.null_count or not len(array):
        return False
    values = array.to_numpy()
    return bool(values.min() >= bounds[0] and values.max() <= bounds[1])
