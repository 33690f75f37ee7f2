"""What batch scoring is cut into, and the worker that scores a unit into files of its own."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raymill.data.chunks import Chunk
from raymill.data.conform import FILE, ROW, Conformed, conform
from raymill.data.ingest import RAW, REASONS, bad_rows, filled
from raymill.data.read import Raw, read_chunk
from raymill.errors import DataError, Problem
from raymill.failpoints import failpoint
from raymill.stores import SCHEME, store_at
from raymill.training.bundle import Bundle
from raymill.training.factories import allowed
from raymill.training.predictor import Predictor

PartFormat = Literal["parquet", "csv", "jsonl"]
UNIT_ROWS = 65_536
QUARANTINE = "_quarantine"  # readers of data sets skip names that begin so
SOURCE_FILE, SOURCE_ROW, VERSION = "source_file", "source_row", "model_version"
SHOWN = 20  # bad rows that an error lists
_MOST_PARTITIONS = 1000  # of one unit
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"  # Hive's own name for it


@dataclass(frozen=True)
class Unit:
    """Rows `[low, high)` of a chunk, by their place in it; None: to its end."""

    chunk: Chunk
    low: int
    high: int | None

    @property
    def part(self) -> str:
        """The name of its files; it sorts as the rows do."""
        return f"part-{self.chunk.file:05d}-{self.chunk.first + self.low:012d}"


def cut(chunks: Iterable[Chunk], rows: int = UNIT_ROWS) -> list[Unit]:
    """Units of about `rows` rows, so that a killed scoring loses little and no worker idles."""
    units = []
    for chunk in chunks:
        step = rows if len(chunk.files) == 1 else chunk.rows  # images: a chunk is small already
        lows = range(0, chunk.rows, step)
        units += [Unit(chunk, low, low + step if low + step < chunk.rows else None)
                  for low in lows]
    return units


@dataclass(frozen=True)
class Layout:
    """How the answers are written: below `out`, with the `keep` columns of the input beside them,
    a folder for each value of the `partition` columns, which are among those."""

    out: str
    format: PartFormat = "parquet"
    keep: tuple[str, ...] = ()
    partition: tuple[str, ...] = ()


@dataclass(frozen=True)
class Done:
    """A unit that is finished, and when (epoch seconds). `problems`: of bad rows that ended it;
    then nothing was written."""

    part: str
    scored: int = 0
    quarantined: int = 0
    began: float = 0.0
    ended: float = 0.0
    files: tuple[dict[str, Any], ...] = ()  # name below `out`, rows, size, sha256
    problems: tuple[dict[str, str], ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Done:
        said = json.loads(text)
        return cls(**{**said, "files": tuple(said["files"]), "problems": tuple(said["problems"])})


class Halt:
    """A file at a path, or an object in a store, that ends the scoring while it is there."""

    def __init__(self, place: str) -> None:
        self._place = place

    def is_set(self) -> bool:
        if self._place.startswith(SCHEME):
            folder, _, name = self._place.rpartition("/")
            return store_at(folder).has(name)
        return Path(self._place).exists()

    def set(self) -> None:
        if self._place.startswith(SCHEME):
            folder, _, name = self._place.rpartition("/")
            store_at(folder).write(name, b"")
        else:
            Path(self._place).touch()


class Worker:
    """Scores units; Ray Data keeps a pool of these. A unit that is scored twice, as after a
    worker's death, writes the same files again.

    Args:
        quarantine: bad rows are set aside with their reasons; otherwise they end the scoring: the
            file (or object) `halt` is made, and no worker begins a unit while it is there.
    """

    def __init__(
        self, bundle: str, digest: str, version: int, home: str, units: Sequence[Unit],
        layout: Layout, quarantine: bool, halt: str,
    ) -> None:
        opened = Bundle.open(Path(bundle), digest)
        self._predictor = Predictor(opened, factories=allowed(Path(home)), threads=1)
        self._contract, self._version = opened.contract, version
        self._units, self._layout, self._quarantine = units, layout, quarantine
        self._halt = Halt(halt)
        self._read: tuple[Chunk, list[Raw]] | None = None

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Ray Data's call: `unit` are indices; `done` are the JSON of `Done`."""
        done = [self.score(self._units[int(index)]).to_json() for index in batch["unit"]
                if not self._halt.is_set()]
        return {"done": np.array(done, dtype=object)}

    def score(self, unit: Unit) -> Done:
        """Score a unit's rows and write them durably.

        Raises:
            DataError: the file can't be read to its end, or lacks a column that is kept.
        """
        began = time.time()
        scored: list[pa.Table] = []
        bad: list[pa.Table] = []
        for raw in self._rows(unit):
            table = filled(raw.table, self._contract.features) if _sparse(unit) else raw.table
            done = conform(table, self._contract)
            if done.bad or raw.bad:
                bad.append(pa.table(bad_rows(table, done, raw)))
            if len(done.table):
                scored.append(self._answers(unit, table, done))
        if bad and not self._quarantine:
            self._halt.set()
            return Done(unit.part, problems=tuple(_problems(unit, bad)))
        files = [file for table in _joined(scored) for file in self._write(table, unit.part)]
        for table in _joined(bad):
            files.append(_write_file(
                _readable(unit, table), self._layout.out, QUARANTINE,
                f"{unit.part}.parquet", "parquet") | {"folder": QUARANTINE})
        failpoint("score.after_unit")
        return Done(unit.part, sum(map(len, scored)), sum(map(len, bad)), began, time.time(),
                    tuple(files))

    def _rows(self, unit: Unit) -> Iterator[Raw]:
        """The unit's own rows; its chunk is read once for all of its units in this worker."""
        if self._read is None or self._read[0] != unit.chunk:
            self._read = unit.chunk, list(read_chunk(unit.chunk))
        for raw in self._read[1]:
            mine = _slice(raw, unit)
            if len(mine.table) or mine.bad:
                yield mine

    def _answers(self, unit: Unit, table: pa.Table, done: Conformed) -> pa.Table:
        origin = table if done.kept is None else table.take(pa.array(done.kept))
        columns: dict[str, Any] = {SOURCE_FILE: _names(unit, origin[FILE]),
                                   SOURCE_ROW: origin[ROW]}
        for name in self._layout.keep:
            if name not in origin.column_names and not _sparse(unit):
                raise DataError(Problem(rule="a column that is kept must be in every file",
                                        got=f"no {name!r}", where=unit.chunk.files[0].name))
            columns[name] = filled(origin, [name])[name]
        answers = self._predictor.predict(done.table)
        columns |= dict(zip(answers.column_names, answers.columns, strict=True))
        columns[VERSION] = pa.array(np.full(len(origin), self._version, np.int32))
        return pa.table(columns)

    def _write(self, table: pa.Table, part: str) -> Iterator[dict[str, Any]]:
        layout = self._layout
        for folder, rows in _partitions(table, layout.partition):
            yield {**_write_file(rows, layout.out, folder, f"{part}.{layout.format}",
                                 layout.format), "folder": folder}


def _sparse(unit: Unit) -> bool:
    """Whether a column may be left out of a row, and so of a whole part of a file."""
    return unit.chunk.files[0].format == "jsonl"


def _slice(raw: Raw, unit: Unit) -> Raw:
    """The rows of `raw` that are the unit's, by their numbers in the file."""
    if unit.low == 0 and unit.high is None:
        return raw
    low = unit.chunk.first + unit.low
    high = unit.chunk.first + unit.high if unit.high is not None else 2**62
    numbers = raw.table[ROW].to_numpy()
    first, stop = np.searchsorted(numbers, [low, high])
    bad = [(violation, text) for violation, text in raw.bad if low <= violation.row < high]
    return Raw(raw.table.slice(first, stop - first), raw.file, bad)


def _names(unit: Unit, files: pa.ChunkedArray) -> pa.Array:
    names = pa.array([file.name for file in unit.chunk.files], pa.string())
    return names.take(pc.subtract(files.combine_chunks(), unit.chunk.file))


def _joined(tables: list[pa.Table]) -> list[pa.Table]:
    return [pa.concat_tables(tables, promote_options="permissive")] if tables else []


def _readable(unit: Unit, bad: pa.Table) -> pa.Table:
    """file, row, reasons (JSON), raw (the row as it was): as the data stage's quarantine."""
    return pa.table({"file": _names(unit, bad[FILE]), "row": bad[ROW], "reasons": bad[REASONS],
                     "raw": bad[RAW]})


def _problems(unit: Unit, bad: list[pa.Table]) -> Iterator[dict[str, str]]:
    """The first bad rows, with one problem each."""
    rows = _readable(unit, pa.concat_tables(bad)).slice(0, SHOWN).to_pylist()
    for row in rows:
        for reason in json.loads(row["reasons"])[:1]:
            yield {"rule": reason["rule"], "got": reason["got"],
                   "where": f"{row['file']} row {row['row']}"}


def _partitions(table: pa.Table, names: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    """(folder, rows) for each combination of values, in Hive's way of naming folders.

    Raises:
        DataError: a unit has more than a thousand of them.
    """
    if not names:
        yield "", table
        return
    values = table.select(names).group_by(list(names), use_threads=False).aggregate([]).to_pylist()
    if len(values) > _MOST_PARTITIONS:
        raise DataError(Problem(rule=f"a partition column has at most {_MOST_PARTITIONS} values",
                                got=f"{len(values):,} in one part", cure="Choose a coarser one."))
    for combination in values:
        mask: Any = None
        for name, value in combination.items():
            same = (pc.is_null(table[name]) if value is None
                    else pc.fill_null(pc.equal(table[name], pa.scalar(value)), False))
            mask = same if mask is None else pc.and_(mask, same)
        yield _folder(combination), table.filter(mask).drop_columns(list(names))


def _folder(combination: Mapping[str, Any]) -> str:
    return "/".join(f"{quote(name, safe='')}="
                    + (_NULL_PARTITION if value is None else quote(str(value), safe=" "))
                    for name, value in combination.items())


def _write_file(
    table: pa.Table, out: str, below: str, name: str, format: PartFormat
) -> dict[str, Any]:
    """Durably and in one step; what is told of a file in the manifest."""
    if out.startswith(SCHEME):
        with tempfile.TemporaryDirectory(prefix="raymill-part-") as here:
            told = _write_file(table, here, "", name, format)
            store_at(out).put(f"{below}/{name}".lstrip("/"), Path(here, name))
            return told
    folder = Path(out, below)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{name}.{os.getpid()}.tmp"
    if format == "parquet":
        pq.write_table(table, temporary)
    elif format == "csv":
        pacsv.write_csv(table, temporary)
    else:
        encode = msgspec.json.encode
        with temporary.open("wb") as lines:
            lines.writelines(encode(row) + b"\n" for row in table.to_pylist())
    with temporary.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    size = temporary.stat().st_size
    temporary.rename(folder / name)
    return {"name": name, "rows": len(table), "size": size, "sha256": digest}


__all__ = ["Done", "Layout", "Unit", "Worker", "cut"]
