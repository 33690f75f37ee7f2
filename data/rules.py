"""What one column must look like."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import field_validator, model_validator

from raymill.specs import Part

from .spec import Kind

Type = Literal["int64", "float64", "bool", "string", "timestamp", "binary"]
ARROW: dict[str, pa.DataType] = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "timestamp": pa.timestamp("us"),  # UTC, without a zone
    "binary": pa.binary(),
}
MEANS = {
    "int64": "a whole number",
    "float64": "a finite number",
    "bool": "true or false",
    "string": "a text",
    "timestamp": "an ISO time like 2026-01-31T12:00:00",
    "binary": "bytes (base64 in JSON and text files)",
}
SHOWN = 40  # characters of an offending value that an error quotes


def utc(text: str) -> datetime:
    """An ISO time as naive UTC.

    Raises:
        ValueError: not an ISO time.
    """
    time = datetime.fromisoformat(text.strip())
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo is not None else time


def anchored(pattern: str) -> str:
    """For RE2: `pattern` on the whole text."""
    return f"^(?:{pattern})$"


class ColumnRule(Part):
    """The rules of one column; `min` and `max` are inclusive, ISO times for timestamps.

    `values` is the domain; only with `closed` is a value outside of it a violation. `pattern`
    must match the whole text. `sensitive` keeps the column's values out of messages.
    """

    type: Type
    kind: Kind
    nullable: bool = False
    min: float | str | None = None
    max: float | str | None = None
    values: list[str | int | float | bool] | None = None
    closed: bool = False
    pattern: str | None = None
    unique: bool = False
    sensitive: bool = False

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        """Files are matched by RE2 and requests by `re`, so it must be a pattern of both."""
        try:
            re.compile(pattern or "", re.ASCII)
            pc.match_substring_regex(pa.array([""]), anchored(pattern or ""))
        except (re.error, ValueError) as error:  # ArrowInvalid is a ValueError
            raise ValueError(f"a pattern is a regular expression of RE2, without lookaround and "
                             f"backreferences ({error}), but got {pattern!r}") from None
        return pattern

    @model_validator(mode="after")
    def _fits_its_type(self) -> ColumnRule:
        for name, bound in (("min", self.min), ("max", self.max)):
            if bound is not None:
                self._check_bound(name, bound)
        if self.pattern is not None and self.type != "string":
            raise ValueError(f"a pattern is for string columns, but got type {self.type}")
        if self.closed and not self.values:
            raise ValueError("closed: true needs values, the list of what is allowed")
        needs = {"datetime": ("timestamp",), "image": ("binary",), "text": ("string",),
                 "numeric": ("int64", "float64", "bool")}.get(self.kind)
        if needs and self.type not in needs:
            raise ValueError(f"kind {self.kind} needs type {' or '.join(needs)}, but got {self.type}")
        return self

    def _check_bound(self, name: str, bound: float | str) -> None:
        if self.type == "timestamp" and isinstance(bound, str):
            utc(bound)
        elif self.type not in ("int64", "float64") or isinstance(bound, str):
            raise ValueError(f"{name} is a number for int64 and float64 columns and an ISO time for "
                             f"timestamps, but got {bound!r} for type {self.type}")

    @property
    def arrow(self) -> pa.DataType:
        return ARROW[self.type]

    @property
    def low(self) -> Any:
        """`min` as the column's own type."""
        return utc(self.min) if isinstance(self.min, str) else self.min

    @property
    def high(self) -> Any:
        """`max` as the column's own type."""
        return utc(self.max) if isinstance(self.max, str) else self.max

    def show(self, value: Any) -> str:
        """An offending value as messages quote it: short, and never of a sensitive column."""
        if self.sensitive:
            return ""
        if isinstance(value, bytes):
            return f"{len(value):,} bytes"
        text = repr(value.isoformat() if isinstance(value, datetime) else value)
        return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
