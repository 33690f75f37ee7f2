"""The count of all rows: good, bad and why, and what the split's cuts need."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa

from raymill.errors import DataError, Problem

from .conform import FILE, ROW
from .ingest import REASONS
from .keys import Places
from .split import Counts, Plan

LISTED = 50
Bad = tuple[int, int, list[dict[str, str]]]  # file, row, reasons


class Tally:
    """Mergeable over blocks, in their order."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.rows = self.bad = 0
        self.first: list[Bad] = []  # the first bad rows, to be named
        self.rules: dict[str, int] = {}  # how often each rule was broken
        self.duplicates: Places = np.zeros((0, 2), np.int64)

    def merge(self, other: Tally) -> None:
        self.counts.merge(other.counts)
        self.rows += other.rows
        self.bad += other.bad
        self.first = sorted(self.first + other.first, key=lambda bad: bad[:2])[:LISTED]
        for rule, count in other.rules.items():
            self.rules[rule] = self.rules.get(rule, 0) + count

    def add_duplicates(self, found: Places, columns: list[str]) -> None:
        """Rows whose key stands in an earlier row."""
        new = found[~np.isin(found[:, 0], self.duplicates[:, 0])]
        rule = duplicate_rule(columns)
        self.bad += len(new)
        if len(found):
            self.rules[rule] = self.rules.get(rule, 0) + len(found)
        listed: list[Bad] = [
            (int(place) >> 40, int(place) & (2**40 - 1),
             [{"column": ", ".join(columns), "rule": rule,
               "got": f"the same as in file {first >> 40} row {first & (2**40 - 1)}"}])
            for place, first in new[:LISTED].tolist()]
        self.first = sorted(self.first + listed, key=lambda bad: bad[:2])[:LISTED]
        joined = np.concatenate([self.duplicates, new])
        self.duplicates = joined[np.argsort(joined[:, 0], kind="stable")]

    def problems(self, names: list[str], most: int = LISTED) -> list[Problem]:
        """Each broken rule with its file and row, and a count of what isn't listed."""
        listed = [Problem(rule=reason["rule"], got=_named(reason["got"], names),
                          where=f"{names[file]} row {row}")
                  for file, row, reasons in self.first for reason in reasons][:most]
        shown = len({problem.where for problem in listed})
        if self.bad > shown:
            listed.append(Problem(rule=f"{self.bad - shown:,} more rows break the contract: "
                                  + "; ".join(f"{count:,} x {rule}" for rule, count in
                                              sorted(self.rules.items(), key=lambda i: -i[1])[:8])))
        return listed

    def judge(self, on_violation: str, most: float, names: list[str]) -> None:
        """Whether the run may go on.

        Raises:
            DataError: there are bad rows and they are not to be quarantined, or there are too many.
        """
        if not self.bad:
            return
        if on_violation == "fail":
            problems = self.problems(names)
            cure = "Correct the rows or the contract, or set data.on_violation: quarantine."
            last = problems[-1]
            raise DataError([*problems[:-1], Problem(rule=last.rule, got=last.got, where=last.where,
                                                     cure=cure)])
        if self.bad > most * self.rows:
            raise DataError([Problem(
                rule=f"at most {most:.2%} of the rows may be bad (data.max_bad_fraction)",
                got=f"{self.bad:,} of {self.rows:,} ({self.bad / self.rows:.2%})",
                cure="Correct the data or the contract, or raise data.max_bad_fraction."),
                *self.problems(names, 10)])

    def summary(self, names: list[str]) -> dict[str, Any]:
        """For `quarantine/reasons.json`."""
        return {"rows": self.rows, "quarantined": self.bad, "rules": self.rules,
                "first": [{"file": names[file], "row": row, "reasons": reasons}
                          for file, row, reasons in self.first]}


def duplicate_rule(columns: list[str]) -> str:
    return f"{' and '.join(columns)} must not stand twice"


def _named(got: str, names: list[str]) -> str:
    """`the same as in file 0 row 3` with the file's name."""
    head, mark, rest = got.partition("the same as in file ")
    if head or not mark:
        return got
    index, _, row = rest.partition(" ")
    return f"{mark.replace('file ', '')}{names[int(index)]} {row}"


def tally_block(table: pa.Table, handed: tuple[Plan, list[str]]) -> Tally:
    """The tally of one block."""
    layout, roles = handed
    tally = Tally(Counts(layout))
    tally.rows = len(table)
    bad = table.filter(table[REASONS].is_valid())
    tally.bad = len(bad)
    if len(bad):
        table = table.filter(table[REASONS].is_null())
        for file, row, text in zip(bad[FILE].to_pylist(), bad[ROW].to_pylist(),
                                   bad[REASONS].to_pylist(), strict=True):
            reasons = json.loads(text)
            for rule in {reason["rule"] for reason in reasons}:
                tally.rules[rule] = tally.rules.get(rule, 0) + 1
            if len(tally.first) < LISTED:
                tally.first.append((file, row, reasons))
    source = np.array([role == "source" for role in roles])[table[FILE].to_numpy()]
    tally.counts.add(table if source.all() else table.filter(pa.array(source)))
    return tally
