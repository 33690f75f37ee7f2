"""Rows of any protocol to answers, through the bundle's contract and predictor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import pyarrow as pa

from raymill.data.columns import ColumnReader
from raymill.data.structs import Structs

if TYPE_CHECKING:
    from raymill.data.contract import Contract

PROBABILITY = "probability_"
CHAMPION = "champion"
Rows: TypeAlias = Structs | list[dict[str, Any]] | pa.Table
"""JSON rows, decoded by the contract's types or as they are; or columns, not yet checked."""


class PredictorLike(Protocol):
    """A conformed table in; `prediction` and, for classes, `probability_<class>` columns out."""

    def predict(self, table: pa.Table) -> pa.Table: ...


@dataclass(frozen=True)
class Scored:
    """The answers of one request: `count` rows from `start` on of a pass."""

    passed: pa.Table  # conformed features
    answered: pa.Table
    start: int
    count: int
    version: int  # of the model that answered
    variant: str  # what that version was: "champion", "challenger", "shadow"

    @cached_property
    def inputs(self) -> pa.Table:
        """The features as the model saw them."""
        return self.passed.slice(self.start, self.count)

    @cached_property
    def answers(self) -> pa.Table:
        """`prediction` and, for classes, `probability_<class>`."""
        return self.answered.slice(self.start, self.count)

    def columns(self) -> dict[str, list[Any]]:
        """The answers as lists."""
        return {name: _listed(column) for name, column in
                zip(self.answers.column_names, self.answers.columns, strict=True)}


class Scorer:
    """Checks and scores the rows of several requests at once; the batcher's `score`.

    `variant` is what `version` is at the moment; it may change between passes.
    """

    def __init__(
        self, contract: Contract, predictor: PredictorLike, version: int, variant: str = CHAMPION
    ) -> None:
        self._contract, self._predictor = contract, predictor
        self.version, self.variant = version, variant
        self._columns = ColumnReader(contract)

    def __call__(self, requests: Sequence[Rows]) -> list[Scored]:
        """One `Scored` a request.

        Raises:
            DataError: naming each row and field that breaks the contract. With one request, the
                row's index is that in it.
        """
        table, variant = self.table(requests), self.variant
        answers = self._predictor.predict(table)
        scored, start = [], 0
        for rows in requests:
            scored.append(Scored(table, answers, start, len(rows), self.version, variant))
            start += len(rows)
        return scored

    def table(self, requests: Sequence[Rows]) -> pa.Table:
        """The rows of all requests, conformed; raises as a call does."""
        if len(requests) == 1:
            return self._table(requests[0])
        structs = [rows for rows in requests if isinstance(rows, Structs)]
        if len(structs) == len(requests):
            return Structs.join(structs).table()
        tables = [rows for rows in requests if isinstance(rows, pa.Table)]
        if len(tables) == len(requests) and all(t.schema == tables[0].schema for t in tables):
            return self._columns.read(pa.concat_tables(tables))
        return pa.concat_tables([self._table(rows) for rows in requests])

    def _table(self, rows: Rows) -> pa.Table:
        if isinstance(rows, Structs):
            return rows.table()
        if isinstance(rows, pa.Table):
            return self._columns.read(rows)
        return self._contract.from_rows(rows)


def _listed(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_floating(column.type) and not column.null_count:
        listed: list[Any] = column.to_numpy().tolist()  # ten times as quick as to_pylist
        return listed
    values: list[Any] = column.to_pylist()
    return values
