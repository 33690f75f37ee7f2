"""Rows of a request: JSON values checked and typed in one pass, without a detour."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from math import isfinite
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from raymill.errors import DataError, Problem

from .casts import PARSE
from .images import problem_of
from .rules import MEANS, ColumnRule, utc

if TYPE_CHECKING:
    from .contract import Contract

LISTED = 50  # problems that one error names
Convert = Callable[[Any], Any]


class RowReader:
    """Compiled once from a contract; `read` is the endpoint's hot path.

    A nullable field may be left out. Fields of columns that the model doesn't read are taken and
    not looked at; fields that the contract doesn't know are refused.
    """

    def __init__(self, contract: Contract) -> None:
        self._fields = [(name, converter(name, contract.columns[name]), contract.columns[name])
                        for name in contract.features]
        self._known = frozenset(contract.columns) | frozenset(contract.drop)
        self._types = [rule.arrow for _, _, rule in self._fields]
        self._schema = pa.schema([(name, rule.arrow) for name, _, rule in self._fields])

    def read(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """A table of the contract's features.

        Raises:
            DataError: each problem's `where` is `rows[i].field`, i from 0.
        """
        problems: list[Problem] = []
        for index, row in enumerate(rows):
            if not row.keys() <= self._known:
                problems += [
                    Problem(rule=f"unknown field {name!r}", where=f"rows[{index}].{name}",
                            cure=f"Known are {', '.join(self._schema.names)}.")
                    for name in row if name not in self._known
                ]
        arrays = []
        for (name, convert, rule), kind in zip(self._fields, self._types, strict=True):
            values = [row.get(name) for row in rows]
            try:
                arrays.append(pa.array([convert(value) for value in values], kind))
            except ValueError:
                problems += named(values, convert, name, rule)
        if problems:
            raise DataError(first_of(problems))
        return pa.Table.from_arrays(arrays, schema=self._schema)


def first_of(problems: list[Problem]) -> list[Problem]:
    """As many as one error names, and how many more there are."""
    more = len(problems) - LISTED
    extra = [Problem(rule=f"{more} more like these")] if more > 0 else []
    return problems[:LISTED] + extra


def named(values: list[Any], convert: Convert, name: str, rule: ColumnRule) -> list[Problem]:
    """A problem for each of a column's values that `convert` refuses."""
    problems = []
    for index, value in enumerate(values):
        try:
            convert(value)
        except ValueError as error:
            problems.append(Problem(rule=str(error), got=rule.show(value),
                                    where=f"rows[{index}].{name}"))
    return problems


def converter(name: str, rule: ColumnRule) -> Convert:
    """A function from a JSON value to the column's; its ValueError states the rule."""
    typed = _TYPED[rule.type]
    checks = _checks(name, rule)
    wrong, missing = f"{name} must be {MEANS[rule.type]}", f"{name} must not be empty"
    nullable = rule.nullable

    def convert(value: Any) -> Any:
        if value is None:
            if nullable:
                return None
            raise ValueError(missing)
        try:
            value = typed(value)
        except (ValueError, TypeError, OverflowError):
            raise ValueError(wrong) from None
        for broken, text in checks:
            if broken(value):
                raise ValueError(text)
        return value

    return convert


def _checks(name: str, rule: ColumnRule) -> list[tuple[Callable[[Any], bool], str]]:
    checks: list[tuple[Callable[[Any], bool], str]] = []
    low, high = rule.low, rule.high
    if low is not None:
        checks.append((lambda value: bool(value < low), f"{name} must be >= {rule.min}"))
    if high is not None:
        checks.append((lambda value: bool(value > high), f"{name} must be <= {rule.max}"))
    if rule.closed and rule.values is not None:
        domain = frozenset(PARSE[rule.type](str(value)) for value in rule.values)
        shown = ", ".join(map(str, rule.values[:8])) + (", ..." if len(rule.values) > 8 else "")
        checks.append((lambda value: value not in domain, f"{name} must be one of {shown}"))
    if rule.pattern is not None:
        match = re.compile(rule.pattern, re.ASCII).fullmatch  # as RE2 does
        checks.append((lambda value: match(value) is None, f"{name} must match {rule.pattern}"))
    if rule.kind == "image":
        checks.append((lambda value: problem_of(value) is not None,
                       f"{name} must be an image that can be decoded"))
    return checks


def _int(value: Any) -> int:
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise ValueError
    return value


def _float(value: Any) -> float:
    if type(value) is not float:
        if type(value) is not int:
            raise ValueError
        value = float(value)
    if not isfinite(value):
        raise ValueError
    return float(value)


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError
    return value


def _time(value: Any) -> datetime:
    return utc(_text(value))


def _bytes(value: Any) -> bytes:
    data: bytes = PARSE["binary"](_text(value))
    return data


_TYPED: dict[str, Convert] = {"int64": _int, "float64": _float, "bool": _bool, "string": _text,
                              "timestamp": _time, "binary": _bytes}
