"""JSON rows decoded straight into the contract's types; what can't be goes the long way round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, floor
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import pyarrow as pa

from raymill.errors import DataError, Problem

from .conform import INT_MAX, INT_MIN
from .rows import converter, first_of, named
from .rules import ColumnRule

if TYPE_CHECKING:
    from .contract import Contract

Convert = Callable[[Any], Any]


class StructReader:
    """Decodes `{"rows": [{...}, ...]}` by the contract: types, ranges and closed domains are
    checked by msgspec while it reads. Accepts nothing that `RowReader` refuses; what it refuses
    itself is for `RowReader` to judge and to name."""

    def __init__(self, contract: Contract) -> None:
        self._rules = [(name, contract.columns[name]) for name in contract.features]
        self._schema = pa.schema([(name, rule.arrow) for name, rule in self._rules])
        self._get = [attrgetter(f"f{index}") for index in range(len(self._rules))]
        self._checks: list[Convert | None] = [
            None if _decoded_whole(rule) else converter(name, rule) for name, rule in self._rules
        ]
        others = [name for name in (*contract.columns, *contract.drop)
                  if name not in contract.features]
        row = _struct(self._rules, others)
        body = msgspec.defstruct("Body", [("rows", list[row])],  # type: ignore[valid-type]
                                 forbid_unknown_fields=True)
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(body).decode

    def decode(self, body: bytes) -> Structs:
        """The rows of a body.

        Raises:
            msgspec.MsgspecError, ValueError, RecursionError: it needs the long way.
        """
        return Structs(self, self._decode(body).rows)

    def table(self, rows: Sequence[Any]) -> pa.Table:
        """The features of decoded rows.

        Raises:
            DataError: a text breaks its pattern, a time or an image can't be read.
        """
        arrays, problems = [], list[Problem]()
        for (name, rule), get, check in zip(self._rules, self._get, self._checks, strict=True):
            values = list(map(get, rows))
            if check is None:
                arrays.append(pa.array(values, rule.arrow))
                continue
            try:
                arrays.append(pa.array([check(value) for value in values], rule.arrow))
            except ValueError:
                problems += named(values, check, name, rule)
        if problems:
            raise DataError(first_of(problems))
        return pa.Table.from_arrays(arrays, schema=self._schema)


class Structs:
    """Decoded rows, and the reader that knows their columns."""

    __slots__ = ("_reader", "_rows")

    def __init__(self, reader: StructReader, rows: list[Any]) -> None:
        self._reader, self._rows = reader, rows

    def __len__(self) -> int:
        return len(self._rows)

    def table(self) -> pa.Table:
        """See `StructReader.table`."""
        return self._reader.table(self._rows)

    @staticmethod
    def join(parts: Sequence[Structs]) -> Structs:
        """Rows of several requests, in their order."""
        return Structs(parts[0]._reader, [row for part in parts for row in part._rows])


def _struct(rules: Sequence[tuple[str, ColumnRule]], others: Sequence[str]) -> type[Any]:
    """A msgspec struct of a row: `f0`, `f1`, ... under the columns' own names."""
    fields: list[Any] = []
    names = dict[str, str]()
    for index, (name, rule) in enumerate(rules):
        kind = _type(rule)
        fields.append((f"f{index}", kind | None, None) if rule.nullable else (f"f{index}", kind))
        names[f"f{index}"] = name
    fields.sort(key=len)  # those without a default first
    for index, name in enumerate(others):
        fields.append((f"o{index}", msgspec.Raw, msgspec.Raw()))
        names[f"o{index}"] = name
    return msgspec.defstruct("Row", fields, rename=names, forbid_unknown_fields=True, gc=False)


def _decoded_whole(rule: ColumnRule) -> bool:
    """msgspec checks every rule of the column."""
    texts = rule.type == "string" and rule.pattern is None
    closed = rule.closed and rule.values is not None
    if closed and not (texts and all(type(value) is str for value in rule.values or ())):
        return False
    return (texts or rule.type in ("int64", "float64", "bool")) and rule.kind != "image"


def _type(rule: ColumnRule) -> Any:
    whole = _decoded_whole(rule)
    if rule.type == "float64":
        low, high = (None if bound is None else float(bound) for bound in (rule.low, rule.high))
        return Annotated[float, msgspec.Meta(ge=low, le=high)]
    if rule.type == "int64":
        low = INT_MIN if rule.low is None else min(max(INT_MIN, ceil(rule.low)), INT_MAX)
        high = INT_MAX if rule.high is None else max(min(INT_MAX, floor(rule.high)), INT_MIN)
        return Annotated[int, msgspec.Meta(ge=low, le=high)]
    if rule.type == "bool":
        return bool
    if whole and rule.closed and rule.values is not None:
        return Literal[tuple(rule.values)]
    return str
