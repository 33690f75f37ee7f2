"""Which split a row belongs to: by hash, by class, by time or by group; the same on every run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raymill.errors import DataError, Problem, SpecError
from raymill.specs import seconds

from .conform import FILE, ROW
from .contract import Contract
from .quantiles import Quantiles
from .spec import DataSpec
from .summary import as_floats, hashes

SPLITS = ("train", "validation", "test")
GAP = 3  # the code of rows that lie in a gap between splits


@dataclass(frozen=True)
class Plan:
    """How rows are shared out. `parts` are the codes of the splits that the source is cut into,
    `shares` the share of each."""

    by: str
    parts: tuple[int, ...]
    shares: tuple[float, ...]
    seed: int
    column: str | None
    gap_us: int
    classes: tuple[str, ...]
    target: str

    @property
    def bits(self) -> int:
        """Buckets of the hash histogram, as a power of two."""
        return int(np.clip(20 - np.log2(max(len(self.classes), 1)), 8, 14))


def plan(spec: DataSpec, contract: Contract) -> Plan:
    """
    Raises:
        SpecError: stratified, but there are no classes.
    """
    split = spec.split
    by = split.by
    if by == "stratified" and contract.task == "regression":
        raise SpecError(Problem(rule="split.by: stratified is for classes", where="data.split.by",
                                got=f"a regression on {contract.target!r}",
                                cure="Take random."))
    if by == "auto":
        by = ("time" if spec.time else "group" if spec.group else
              "random" if contract.task == "regression" else "stratified")
    given = {1: spec.validation is not None, 2: spec.test is not None}
    shares = {0: split.train, 1: split.validation, 2: split.test}
    parts = [code for code in (0, 1, 2) if not given.get(code) and shares[code] > 0]
    total = sum(shares[code] for code in parts)
    stratified = by == "stratified" and contract.classes is not None
    return Plan(by, tuple(parts), tuple(shares[code] / total for code in parts), split.seed,
                {"time": spec.time, "group": spec.group}.get(by), round(seconds(split.gap) * 1e6),
                tuple(contract.classes or ()) if stratified else (), contract.target)


class Counts:
    """What the cuts are computed from; one per block, merged: rows by class and bucket of hash,
    or a quantile sketch of the times."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.buckets = np.zeros((max(len(plan.classes), 1), 2**plan.bits), np.int64)
        self.times = Quantiles()

    def add(self, table: pa.Table) -> None:
        """The rows of the source; those of files given as test or validation stay out."""
        if self.plan.by == "time":
            times = table[self.plan.column].drop_null()
            self.times.add(as_floats(times.combine_chunks()))
            return
        bucket = row_hashes(table, self.plan) >> np.uint64(64 - self.plan.bits)
        np.add.at(self.buckets, (_classes(table, self.plan), bucket.astype(np.int64)), 1)

    def merge(self, other: Counts) -> None:
        self.buckets += other.buckets
        self.times.merge(other.times)

    def cuts(self) -> NDArray[Any]:
        """`[classes, parts - 1]` hashes, or `[1, parts - 1]` times, below which a part ends."""
        edges = np.cumsum(self.plan.shares)[:-1]
        if self.plan.by == "time":
            if self.times.empty:
                return np.zeros((1, len(edges)))
            return self.times.quantiles(edges).reshape(1, -1)
        totals = self.buckets.cumsum(axis=1)
        wanted = np.rint(totals[:, -1:] * edges[None])
        cut = np.array([np.searchsorted(total, want) + (want > 0)
                        for total, want in zip(totals, wanted, strict=True)])
        return cut.astype(np.uint64).reshape(len(totals), -1)


def assign(table: pa.Table, plan: Plan, cuts: NDArray[Any]) -> NDArray[np.int8]:
    """The code of each row's split: 0 train, 1 validation, 2 test, 3 in a gap."""
    parts = np.array(plan.parts, np.int8)
    if plan.by != "time":
        bucket = row_hashes(table, plan) >> np.uint64(64 - plan.bits)
        limits = cuts[_classes(table, plan)]
        return np.asarray(parts[(bucket[:, None] >= limits).sum(axis=1)], np.int8)
    times = as_floats(table[plan.column].combine_chunks())
    index = (times[:, None] >= cuts).sum(axis=1)
    codes = parts[index]
    begins = np.concatenate([[-np.inf], cuts[0]]) + plan.gap_us
    codes[times < begins[index]] = GAP
    return np.asarray(codes, np.int8)


def row_hashes(table: pa.Table, plan: Plan) -> NDArray[np.uint64]:
    """A 64-bit hash of each row: of its group, or of its file and number."""
    if plan.by == "group":
        keys = hashes(table[plan.column].combine_chunks())
    else:
        files = table[FILE].to_numpy().astype(np.uint64)
        keys = (files << np.uint64(40)) + table[ROW].to_numpy().astype(np.uint64)
    return _mixed(keys, plan.seed)


def _mixed(keys: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """SplitMix64's finaliser, seeded."""
    with np.errstate(over="ignore"):
        z = keys + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
        for _ in range(2):
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _classes(table: pa.Table, plan: Plan) -> NDArray[np.int64]:
    if not plan.classes:
        return np.zeros(len(table), np.int64)
    index = pc.index_in(table[plan.target], pa.array(plan.classes))
    return np.asarray(pc.fill_null(index, 0).to_numpy(), np.int64)


def check_sizes(rows: dict[str, int], plan: Plan) -> None:
    """Every split that is trained or measured on must have rows.

    Raises:
        DataError: naming the empty ones.
    """
    needed: Sequence[str] = [SPLITS[code] for code in sorted({0, 1, *plan.parts})]
    empty = [name for name in needed if rows.get(name, 0) == 0]
    if empty:
        said = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise DataError(Problem(
            rule=f"every split must have rows, but {' and '.join(empty)} "
            f"{'has' if len(empty) == 1 else 'have'} none", got=said,
            cure="Give more data, or change data.split (its shares, its gap)."))
