"""Reads the prediction log: its rows, what they sum up to, and their true labels beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raymill.errors import DataError

from . import labels
from .store import META, parts, read_part

_SLACK = timedelta(days=1)  # a part holds rows of the day after it was begun, and, around midnight,
                            # some that were answered just before
_KEYS = ["id", "row"]


@dataclass(frozen=True)
class Window:
    """Which rows: answered from `since` on and before `until` (UTC), by `version`, as `variant`."""

    since: datetime | None = None
    until: datetime | None = None
    version: int | None = None
    variant: str | None = None

    def of(self, table: pa.Table) -> pa.Table:
        """The rows of `table` that are in it."""
        if self.since is not None:
            table = table.filter(pc.greater_equal(table["time"], _scalar(self.since)))
        if self.until is not None:
            table = table.filter(pc.less(table["time"], _scalar(self.until)))
        if self.version is not None:
            table = table.filter(pc.equal(table["version"], self.version))
        if self.variant is not None:
            table = table.filter(pc.equal(table["variant"], self.variant))
        return table


ALL = Window()


def chunks(
    log: Path, window: Window = ALL, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The rows of a window, a part of the log at a time, oldest first.

    Args:
        columns: names, of those that there are; None: all. `META`'s time, version and variant
            are always among them.
    """
    wanted = None if columns is None else [*dict.fromkeys([*columns, "time", "version", "variant"])]
    first = None if window.since is None else _utc(window.since).date() - _SLACK
    last = None if window.until is None else _utc(window.until).date() + _SLACK
    for part in parts(log, first, last):
        table = read_part(log, part, wanted)
        if table is not None and len(table := window.of(table)):
            yield table


def read(log: Path, window: Window = ALL, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a window as one table; versions with other columns have nulls there.

    Raises:
        DataError: a column has types in several versions that can't be joined.
    """
    tables = list(chunks(log, window, columns))
    if not tables:
        return META.empty_table()
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(f"the logged columns of all versions must join ({error}); read one "
                        "version at a time") from None


@dataclass(frozen=True)
class Summary:
    """What a window of a log holds. `dropped`: rows that were answered and could not be logged.
    `labels`: of the rows, those whose true label is known; `versions`: rows by version and variant.
    `files` and `bytes` are those of the whole log."""

    rows: int
    sampled: int
    dropped: int
    labels: int
    first: datetime | None
    last: datetime | None
    files: int
    bytes: int
    versions: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {
            name: None if moment is None else moment.isoformat()
            for name, moment in (("first", self.first), ("last", self.last))}


def summary(log: Path, window: Window = ALL) -> Summary:
    """Sums over the log, one part in memory at a time."""
    rows = sampled = dropped = known = 0
    truth = labels.latest(log).select(_KEYS)
    keys = _KEYS if len(truth) else []
    times: list[datetime] = []
    counts = Counter[tuple[int, str]]()
    for table in chunks(log, window, ["sampled", "dropped_before", *keys]):
        rows += len(table)
        if keys:
            known += len(table.join(truth, keys=keys, join_type="left semi", use_threads=False))
        sampled += pc.sum(table["sampled"]).as_py() or 0
        dropped += pc.sum(table["dropped_before"]).as_py() or 0
        ends = pc.min_max(table["time"]).as_py()
        times += [ends["min"], ends["max"]]
        for group in table.group_by(["version", "variant"]).aggregate([([], "count_all")]).to_pylist():
            counts[group["version"], group["variant"]] += group["count_all"]
    files = parts(log)
    return Summary(
        rows, sampled, dropped, known, min(times, default=None),
        max(times, default=None), len(files),
        sum(path.stat().st_size for path in files if path.exists()),
        [{"version": version, "variant": variant, "rows": count}
         for (version, variant), count in sorted(counts.items())])


def labelled(
    log: Path, window: Window = ALL, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The rows of a window whose true label is known, with `label`, `labelled` (when it came) and
    `by`, a part of the log at a time."""
    truth = labels.latest(log)
    if not len(truth):
        return
    wanted = None if columns is None else [*columns, *_KEYS]
    for table in chunks(log, window, wanted):
        joined = table.join(truth, keys=_KEYS, join_type="inner", use_threads=False)
        if len(joined):
            yield joined


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _scalar(moment: datetime) -> pa.Scalar:
    return pa.scalar(_utc(moment), META.field("time").type)
