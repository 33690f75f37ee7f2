"""Whether a new version takes every row that the old one took, and answers in the same words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raymill.data.contract import ColumnRule, Contract


def other_answers(old: Contract, new: Contract) -> list[str]:
    """Why clients of the old could not read the answers of the new."""
    if old.task != new.task:
        return [f"it is a {new.task} and not a {old.task}"]
    if old.classes != new.classes:
        return ["its classes are others"]
    return []


def refused_rows(old: Contract, new: Contract) -> list[str]:
    """Why the new could refuse a row that the old takes, each column by its name."""
    known = {*new.columns, *new.drop}
    found = [f"{name}: it knows no such column" for name in (*old.columns, *old.drop)
             if name not in known]
    for name in new.features:
        if name in old.features:
            found += [f"{name}: {why}" for why in _narrower(old.columns[name], new.columns[name])]
        elif not new.columns[name].nullable:
            found.append(f"{name}: it must be there, and was not read before")
    return found


def _narrower(old: ColumnRule, new: ColumnRule) -> list[str]:
    found = []
    if old.type != new.type and (old.type, new.type) != ("int64", "float64"):
        return [f"it is {new.type} and not {old.type}"]
    if old.nullable and not new.nullable:
        found.append("it must not be empty")
    if new.min is not None and (old.min is None or old.low < new.low):
        found.append("its least value is greater")
    if new.max is not None and (old.max is None or old.high > new.high):
        found.append("its greatest value is less")
    if new.closed and not (old.closed and set(old.values or ()) <= set(new.values or ())):
        found.append("its values are fewer")
    if new.pattern is not None and new.pattern != old.pattern:
        found.append("its pattern is another")
    if new.kind != old.kind and "image" in (new.kind, old.kind):
        found.append(f"it is a {new.kind} and not a {old.kind}")
    return found
