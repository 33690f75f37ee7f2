"""A contract from the data: every row is looked at, in parallel."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raymill.errors import DataError, Problem

from .casts import cast
from .chunks import Chunk, Scan, merge_images, scan
from .conform import FILE, ROW
from .contract import Contract
from .images import problem_of
from .read import read_chunk
from .remote import gather
from .rules import ColumnRule, Type
from .source import DataFile
from .spec import DataSpec, Kind, Task
from .summary import ColumnSummary

MOSTLY = 0.98  # this share of the values makes the type; the others will be violations
LISTED = 64  # values that a contract lists
MAX_CLASSES = 1000
PROSE = 4  # words of a free text, on average
FEW_TEXTS = 20  # different values below which a text is a category, however long
_SHAPES: dict[str, str] = {
    "int64": r"^\s*[-+]?\d{1,18}\s*$",
    "float64": r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$",
    "bool": r"^(?i:true|false)$",
    "timestamp": r"^\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[-+]\d\d:?\d\d)?)?$",
}
_GAP = r"\S+"  # what stands between white space: words, roughly
_PADDED = r"^\s*[-+]?0\d"  # zip codes and the like: text, whatever the digits
_OTHERWISE = "kind in the contract, or data.columns without one, can say otherwise"
_ID_NAME = re.compile(r"(?i)(^|_)(id|uuid|guid|key|index|rownum)$|(?<=[a-z])Id$|^unnamed: ?0$|^$")


@dataclass(frozen=True)
class Inferred:
    """The contract, and a note on each choice that is not obvious."""

    contract: Contract
    notes: list[str]


@dataclass
class Look:
    """What was seen of one column; mergeable."""

    fits: dict[str, int] = field(default_factory=dict)
    padded: int = 0
    misfit: str = ""
    seen: ColumnSummary = field(default_factory=lambda: ColumnSummary("items"))
    numbers: ColumnSummary = field(default_factory=lambda: ColumnSummary("numbers"))
    image: bool = False
    odd: str = ""  # an Arrow type that no rule takes
    words: int = 0  # of all texts together

    @property
    def valid(self) -> int:
        return self.seen.rows - self.seen.nulls

    @property
    def distinct(self) -> int:
        return max(self.seen.distinct.count, self.numbers.distinct.count)

    def add(self, array: pa.Array) -> None:
        plain, _ = (array, None) if _is_text(array) else _typed(array)
        if plain is None:
            self.odd = str(array.type)
            plain = pa.nulls(len(array), pa.string())
        kind = _name(plain)
        if kind == "string":
            self._add_text(plain)
        elif kind == "binary":
            self._add_bytes(plain)
        else:
            valid = len(plain) - plain.null_count
            for to in {"int64": ("int64", "float64"), "bool": ("bool",)}.get(kind, (kind,)):
                self.fits[to] = self.fits.get(to, 0) + valid
            self._add_numbers(plain)

    def _add_numbers(self, plain: pa.Array) -> None:
        self.numbers.add(plain, 0)
        different = plain.unique()
        if pa.types.is_timestamp(plain.type) or len(different) > MAX_CLASSES:
            self.seen.rows += len(plain)
            self.seen.nulls += plain.null_count
        else:
            self.seen.add(cast(plain, "string")[0], 0)

    def _add_bytes(self, plain: pa.Array) -> None:
        valid = plain.drop_null()
        self.fits["binary"] = self.fits.get("binary", 0) + len(valid)
        self.image = self.image or (len(valid) > 0 and problem_of(valid[0].as_py()) is None)
        self.seen.rows += len(plain)
        self.seen.nulls += plain.null_count

    def _add_text(self, plain: pa.Array) -> None:
        self.seen.add(plain, 0)
        best, count = "", 0
        for to, shape in _SHAPES.items():
            matching = pc.match_substring_regex(plain, shape)
            fitting = pc.sum(matching).as_py() or 0
            self.fits[to] = self.fits.get(to, 0) + fitting
            if fitting > count:
                best, count = to, fitting
                misfits = plain.filter(pc.invert(matching)).drop_null()
                self.misfit = self.misfit or (misfits[0].as_py() if len(misfits) else "")
        self.words += pc.sum(pc.count_substring_regex(plain, _GAP)).as_py() or 0
        self.padded += pc.sum(pc.match_substring_regex(plain, _PADDED)).as_py() or 0
        if best in ("int64", "float64", "timestamp") and count >= MOSTLY / 2 * len(plain):
            self.numbers.add(cast(plain, "timestamp" if best == "timestamp" else "float64")[0], 0)

    def merge(self, other: Look) -> None:
        for to, count in other.fits.items():
            self.fits[to] = self.fits.get(to, 0) + count
        self.padded += other.padded
        self.words += other.words
        self.misfit = self.misfit or other.misfit
        self.odd = self.odd or other.odd
        self.image = self.image or other.image
        self.seen.merge(other.seen)
        self.numbers.merge(other.numbers)

    @property
    def type(self) -> Type:
        """The type that (nearly) all values have."""
        enough = self.valid if self.valid < 100 else MOSTLY * self.valid
        if self.valid == 0:
            return "string"
        if self.fits.get("binary", 0) == self.valid:
            return "binary"
        if not self.padded and self.fits.get("float64", 0) >= enough:
            whole = self.fits.get("int64", 0) == self.fits["float64"]
            return "int64" if whole else "float64"
        for to in ("bool", "timestamp"):
            if self.fits.get(to, 0) >= (enough if to == "timestamp" else self.valid):
                return to
        return "string"


def _is_text(array: pa.Array) -> bool:
    return bool(pa.types.is_string(array.type))


def _typed(array: pa.Array) -> tuple[pa.Array | None, None]:
    """The array as one of the contract's types, or None where none takes it."""
    inner = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    for test, to in ((pa.types.is_boolean, "bool"), (pa.types.is_integer, "int64"),
                     (pa.types.is_floating, "float64"), (pa.types.is_decimal, "float64"),
                     (pa.types.is_timestamp, "timestamp"), (pa.types.is_date, "timestamp"),
                     (pa.types.is_null, "string"), (pa.types.is_large_string, "string"),
                     (pa.types.is_string, "string"), (pa.types.is_string_view, "string"),
                     (pa.types.is_binary, "binary"), (pa.types.is_large_binary, "binary"),
                     (pa.types.is_struct, "binary")):
        if test(inner):
            typed, bad = cast(array, to)  # type: ignore[arg-type]
            return (None if len(bad) == len(array) else typed), None
    return None, None


def _name(array: pa.Array) -> str:
    return {pa.int64(): "int64", pa.float64(): "float64", pa.bool_(): "bool",
            pa.timestamp("us"): "timestamp", pa.binary(): "binary"}.get(array.type, "string")


def _look(chunk: Chunk, target: str) -> dict[str, Look]:
    looks: dict[str, Look] = {}
    rows = 0
    for raw in read_chunk(chunk, target):
        for name in raw.table.column_names:
            if name in (FILE, ROW):
                continue
            if name not in looks:
                looks[name] = Look()
                looks[name].seen.add(pa.nulls(rows, pa.string()), 0)
            looks[name].add(raw.table[name].combine_chunks())
        rows += len(raw.table)
    return looks


def infer(files: Sequence[DataFile], spec: DataSpec, scans: Sequence[Scan] | None = None,
          positive: str | None = None) -> Inferred:
    """The contract that the files keep, every row considered.

    Needs a running Ray. `positive` names the class that a binary model finds; by default it is
    the rarer one. `scans` are the files' when they are there already.

    Raises:
        DataError: a file is broken; the target isn't there or can't be one.
    """
    scans = scans if scans is not None else scan(files)
    broken = [problem for found in scans for problem in found.problems]
    if broken:
        raise DataError(broken)
    chunks = merge_images([chunk for found in scans for chunk in found.chunks])
    looks: dict[str, Look] = {}
    rows = 0
    for found in gather(_look, [(chunk, spec.target) for chunk in chunks]):
        count = max((look.seen.rows for look in found.values()), default=0)
        for name in {**looks, **found}:
            if name not in looks:
                looks[name] = Look()
                looks[name].seen.add(pa.nulls(rows, pa.string()), 0)
            look = found.get(name)
            if look is None:
                look = Look()
                look.seen.add(pa.nulls(count, pa.string()), 0)
            looks[name].merge(look)
        rows += count
    return _Maker(looks, spec, rows, positive).make()


class _Maker:
    """The choices, from what was seen."""

    def __init__(
        self, looks: dict[str, Look], spec: DataSpec, rows: int, positive: str | None
    ) -> None:
        self.looks, self.spec, self.rows, self.positive = looks, spec, rows, positive
        self.notes: list[str] = []

    def make(self) -> Inferred:
        self._check_names()
        target = self.looks[self.spec.target]
        task = self._task(target)
        classes = self._classes(target, task) if task != "regression" else None
        columns = {name: self._rule(name, look) for name, look in self.looks.items()
                   if name not in self.spec.drop and name != self.spec.target}
        columns[self.spec.target] = self._target_rule(target, classes)
        if all(rule.kind == "ignore" for name, rule in columns.items() if name != self.spec.target):
            raise DataError(Problem(
                rule="at least one column must be of use to the model", got="; ".join(self.notes),
                cure="State a column's kind in data.columns."))
        contract = Contract(
            target=self.spec.target, task=task, classes=classes, key=self.spec.key,
            time=self.spec.time, drop=self.spec.drop, columns=columns)
        return Inferred(contract.with_seen({name: _remark(look, columns[name].type)
                                            for name, look in self.looks.items()
                                            if name in columns}), self.notes)

    def _check_names(self) -> None:
        spec = self.spec
        named = [("data.target", spec.target), ("data.time", spec.time), ("data.group", spec.group),
                 *(("data.key", key) for key in spec.key), *(("data.drop", d) for d in spec.drop),
                 *(("data.columns", name) for name in spec.columns)]
        problems = [
            Problem(rule=f"{role} must name a column", got=repr(name),
                    cure=f"The columns are {', '.join(map(repr, list(self.looks)[:30]))}.")
            for role, name in named if name is not None and name not in self.looks]
        if problems:
            raise DataError(problems)

    def _task(self, look: Look) -> Task:
        if self.spec.task is not None:
            return self.spec.task
        distinct = look.distinct
        if look.valid == 0 or distinct < 2:
            raise DataError(Problem(
                rule=f"the target {self.spec.target!r} must have at least two different values",
                got=f"{distinct}"))
        if look.type == "bool" or distinct == 2:
            task: Task = "binary"
        elif look.type == "string" or (look.type == "int64" and distinct <= 20):
            task = "multiclass"
        else:
            return "regression"
        self.notes.append(f"{self.spec.target}: {distinct} different values make the task {task}; "
                          "where that is wrong, state task in the contract, or data.task without one")
        return task

    def _classes(self, look: Look, task: Task) -> list[str]:
        found = look.seen.items.top(MAX_CLASSES + 1)
        names = [name.lower() if look.type == "bool" else name for name, _ in found]
        counts = dict(zip(names, (count for _, count in found), strict=True))
        if not 2 <= len(names) <= MAX_CLASSES:
            raise DataError(Problem(
                rule=f"a target of classes has 2 to {MAX_CLASSES:,} different values",
                got=f"{look.distinct:,} in {self.spec.target!r}",
                cure="State data.task: regression for numbers."))
        ordered = sorted(names, key=_number_or_text)
        if task == "multiclass":
            return ordered
        if len(ordered) != 2:
            raise DataError(Problem(rule="a binary target has 2 different values",
                                    got=f"{len(ordered)} in {self.spec.target!r}"))
        return two_classes(ordered, counts, self.positive, self.notes)

    def _target_rule(self, look: Look, classes: list[str] | None) -> ColumnRule:
        if classes is None:
            kind = look.type
            if kind not in ("int64", "float64"):
                raise DataError(Problem(rule="a regression's target holds numbers",
                                        got=f"{kind} in {self.spec.target!r}"))
            self._misfits(self.spec.target, look, "float64")
            return ColumnRule(type="float64", kind="numeric")
        return ColumnRule(type="string", kind="categorical", values=list(classes), closed=True)

    def _rule(self, name: str, look: Look) -> ColumnRule:
        kind, type_ = self._kind(name, look)
        required = name in (self.spec.time, self.spec.group) or name in self.spec.key
        values = None
        if kind == "categorical":
            top = look.seen.items.top(LISTED + 1)
            values = sorted((v for v, _ in top), key=_number_or_text) if len(top) <= LISTED else None
        listed: list[Any] | None = values
        if values is not None and type_ == "int64":
            listed = [int(float(value)) for value in values]
        elif values is not None and type_ != "string":
            listed = None
        self._misfits(name, look, type_)
        return ColumnRule(type=type_, kind=kind, nullable=look.seen.nulls > 0 and not required,
                          values=listed)

    def _misfits(self, name: str, look: Look, type_: Type) -> None:
        short = look.valid - look.fits.get(type_, look.valid)
        if type_ != "string" and short > 0:
            self.notes.append(f"{name}: {short:,} of {look.valid:,} values are no {type_} (such as "
                              f"{look.misfit[:40]!r}); they break the contract")

    def _kind(self, name: str, look: Look) -> tuple[Kind, Type]:
        type_ = look.type
        stated = self.spec.columns.get(name)
        if stated is not None:
            return stated, _type_for(stated, type_, name)
        if self._is_free_text(name, look, type_):
            self.notes.append(f"{name}: read as free text ({look.words / look.valid:.0f} words on "
                              f"average); {_OTHERWISE}")
            return "text", type_
        reason = self._why_ignored(name, look, type_)
        if reason:
            self.notes.append(f"{name}: not shown to the model ({reason}); {_OTHERWISE}")
            return "ignore", type_
        kinds: dict[Type, Kind] = {
            "int64": "numeric", "float64": "numeric", "bool": "categorical",
            "string": "categorical", "timestamp": "datetime", "binary": "image"}
        return kinds[type_], type_

    def _is_free_text(self, name: str, look: Look, type_: Type) -> bool:
        """Several words, and seldom the same twice."""
        special = name in self.spec.key or name == self.spec.group
        return (type_ == "string" and not special and look.words >= PROSE * look.valid
                and look.distinct > max(FEW_TEXTS, look.valid / 4))

    def _why_ignored(self, name: str, look: Look, type_: Type) -> str:
        valid, distinct = look.valid, look.distinct
        if look.odd:
            return f"{look.odd} is a type that no model family reads"
        if name in self.spec.key:
            return "a key"
        if name == self.spec.group:
            return "it names the group"
        if valid == 0:
            return "it is empty"
        if type_ == "binary":
            return "" if look.image else "bytes that are no image"
        if distinct == 1 and not look.seen.nulls:
            return "it never changes"
        if type_ == "string" and distinct > 1000 and distinct > valid / 2:
            return f"{distinct:,} different texts in {valid:,} rows: an identifier, it seems"
        if type_ == "int64" and valid >= 50 and distinct >= 0.98 * valid:
            span = look.numbers.numbers.max - look.numbers.numbers.min + 1
            if span <= 1.05 * valid or _ID_NAME.search(name):
                return "it numbers the rows"
        return ""


def two_classes(
    ordered: list[str], counts: dict[str, int], positive: str | None, notes: list[str]
) -> list[str]:
    """[negative, positive]: as stated, else the rarer one is positive (ties: the later one)."""
    if positive is not None:
        if positive not in ordered:
            raise DataError(Problem(rule="objective.positive must be one of the target's classes",
                                    got=repr(positive), cure=f"They are {' and '.join(ordered)}."))
        chosen = positive
    else:
        chosen = min(reversed(ordered), key=lambda name: counts.get(name, 0))
        tie = len({counts.get(name, 0) for name in ordered}) == 1
        notes.append(f"the positive class is {chosen!r}, "
                     f"{'both being as frequent' if tie else 'the rarer one'}; state "
                     "objective.positive where that is wrong")
    return [name for name in ordered if name != chosen] + [chosen]


def _type_for(kind: Kind, type_: Type, name: str) -> Type:
    fitting: dict[Kind, tuple[Type, ...]] = {
        "numeric": ("int64", "float64", "bool"), "datetime": ("timestamp",), "image": ("binary",),
        "text": ("string",),
        "categorical": ("string", "int64", "bool"), "ignore": (type_,)}
    if type_ in fitting[kind]:
        return type_
    if kind == "numeric" and type_ == "string":
        return "float64"
    if kind == "categorical" and type_ in ("float64", "timestamp"):
        return "string"
    raise DataError(Problem(rule=f"data.columns says {name!r} is {kind}",
                            got=f"values of type {type_}"))


def _number_or_text(text: str) -> tuple[int, float, str]:
    try:
        return (0, float(text), text)
    except ValueError:
        return (1, 0.0, text)


def _remark(look: Look, type_: Type) -> str:
    parts = []
    if look.numbers.numbers.count and type_ in ("int64", "float64", "timestamp"):
        low, high = look.numbers.numbers.min, look.numbers.numbers.max
        if type_ == "timestamp":
            times = pa.array([int(low), int(high)], pa.timestamp("us")).cast(pa.string())
            parts.append(f"seen {times[0]} .. {times[1]}")
        else:
            parts.append(f"seen {low:.10g} .. {high:.10g}")
    if look.distinct:
        parts.append(f"{look.distinct:,} different")
    if look.seen.nulls:
        parts.append(f"{look.seen.nulls:,} of {look.seen.rows:,} empty")
    return ", ".join(parts)
