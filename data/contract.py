"""What the rows of a data set must look like; one object for files and for requests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from pydantic import Field, PrivateAttr, ValidationError, model_validator

from raymill.errors import SpecError
from raymill.specs import Part
from raymill.yamls import problems, read_yaml

from .conform import Conformed, Violation, conform
from .rows import RowReader
from .rules import ColumnRule
from .spec import Task

HEAD = """\
# What a row must look like, inferred from the data. Edit it: training data, batch inputs and
# requests are all checked against this file.
#   min, max: inclusive bounds         values + closed: true: no other value is allowed
#   pattern: the whole text matches    unique: true: no value stands twice
#   kind: numeric, categorical, datetime, text, image, or ignore (kept, not shown to the model)
#   sensitive: true (personal data) keeps values out of messages; the log of predictions has a
#   hash of them
"""


class Contract(Part):
    """The columns, the target, and what it is.

    `classes` are the target's by index; a binary task's are [negative, positive]. `drop` are
    columns that are taken from the source and thrown away. `time` is the column the rows' order
    goes by, where the split uses one.
    """

    target: str
    task: Task
    classes: list[str] | None = None
    key: list[str] = Field(default_factory=list)
    time: str | None = None
    drop: list[str] = Field(default_factory=list)
    columns: dict[str, ColumnRule]

    _seen: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _hangs_together(self) -> Contract:
        for role, names in (("target", [self.target]), ("key", self.key),
                            ("time", [self.time] if self.time else [])):
            for name in names:
                if name not in self.columns:
                    raise ValueError(f"{role} names a column of the contract, but got {name!r}")
        if self.task == "regression" and self.classes is not None:
            raise ValueError("a regression has no classes")
        if self.task != "regression":
            if self.classes is None or len(set(self.classes)) != len(self.classes):
                raise ValueError("a task of classes needs classes: each named once")
            if (self.task == "binary") != (len(self.classes) == 2):
                raise ValueError(f"binary has 2 classes and multiclass more, but got {self.classes}")
        if not self.features:
            raise ValueError("at least one column must be shown to the model (kind not ignore)")
        if sum(self.columns[name].kind == "image" for name in self.features) > 1:
            raise ValueError("at most one column may be an image")
        return self

    @cached_property
    def features(self) -> list[str]:
        """The columns that the model reads."""
        return [name for name, rule in self.columns.items()
                if name != self.target and rule.kind != "ignore"]

    @cached_property
    def version(self) -> str:
        """16 hex digits that change with any rule."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def _reader(self) -> RowReader:
        return RowReader(self)

    def from_rows(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """JSON rows as a conformed table of the features.

        Raises:
            DataError: each problem's `where` is `rows[i].field`, i from 0.
        """
        return self._reader.read(rows)

    def with_seen(self, seen: Mapping[str, str]) -> Contract:
        """Itself, with a remark on each column for `to_yaml`."""
        self._seen.update(seen)
        return self

    def to_yaml(self) -> str:
        """The contract for people: only what differs from the defaults, with what was seen."""
        head = {key: value for key, value in self.model_dump(mode="json").items()
                if key != "columns" and value not in (None, [])}
        lines = [HEAD.rstrip(), yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip(),
                 "columns:"]
        for name, rule in self.columns.items():
            said = rule.model_dump(mode="json", exclude_defaults=True)
            said["nullable"] = rule.nullable
            flow = yaml.safe_dump(said, default_flow_style=True, sort_keys=False, width=10**6,
                                  allow_unicode=True).strip()
            if self._seen.get(name):
                lines.append(f"  # {self._seen[name]}")
            lines.append(f"  {_key(name)}: {flow}")
        return "\n".join(lines) + "\n"

    @classmethod
    def read(cls, path: Path) -> Contract:
        """A contract from its file.

        Raises:
            SpecError: every problem at once, each with file:line:column.
        """
        document, marks = read_yaml(path, "a contract", "raymill init writes one from the data.")
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise SpecError(problems(error, marks, str(path), cls)) from None


def _key(name: str) -> str:
    """A column's name as a YAML key, quoted where it must be."""
    return yaml.safe_dump({name: 0}, allow_unicode=True, width=10**6).rsplit(":", 1)[0].strip()


__all__ = ["ColumnRule", "Conformed", "Contract", "Violation", "conform"]
