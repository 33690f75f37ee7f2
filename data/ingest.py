"""Chunks into a Ray data set of conformed rows; a bad row stays in it, with its reasons."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from .chunks import PIECE, Chunk
from .conform import FILE, ROW, Conformed, Violation, conform
from .contract import Contract
from .read import Raw, read_chunk

REASONS, RAW = "__reasons", "__raw"  # of bad rows: JSON list of violations; the row as text
SHOWN_TEXT = 4000  # characters of a bad row that quarantine keeps a value


class ChunkSource(Datasource):  # type: ignore[misc]
    """Ray Data's view of our chunks: one read task each, small ones together."""

    def __init__(self, chunks: Sequence[Chunk], contract: Contract) -> None:
        super().__init__()
        self._chunks, self._contract = list(chunks), contract

    def get_name(self) -> str:
        return "Ingest"

    def estimate_inmemory_data_size(self) -> int | None:
        return sum(map(_size, self._chunks))

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        tasks = []
        for group in _groups(self._chunks):
            meta = BlockMetadata(num_rows=None, size_bytes=sum(map(_size, group)),
                                 input_files=None, exec_stats=None)
            tasks.append(ReadTask(_Read(tuple(group), self._contract), meta,
                                  per_task_row_limit=per_task_row_limit))
        return tasks


@dataclass(frozen=True)
class _Read:
    """What a read task calls."""

    chunks: tuple[Chunk, ...]
    contract: Contract

    def __call__(self) -> Iterator[pa.Table]:
        for chunk in self.chunks:
            for raw in read_chunk(chunk, self.contract.target):
                yield checked(raw, self.contract, sparse=chunk.files[0].format == "jsonl")


def _size(chunk: Chunk) -> int:
    return (chunk.stop - chunk.start) or sum(file.size for file in chunk.files)


def _groups(chunks: Sequence[Chunk]) -> Iterator[list[Chunk]]:
    group: list[Chunk] = []
    size = 0
    for chunk in chunks:
        if group and size + _size(chunk) > PIECE:
            yield group
            group, size = [], 0
        group.append(chunk)
        size += _size(chunk)
    if group:
        yield group


def read(chunks: Sequence[Chunk], contract: Contract) -> ray.data.Dataset:
    """Every row of `chunks`, lazily: the contract's columns, `__file`, `__row`, and for bad rows
    `__reasons` and `__raw`, their other columns null.

    Raises:
        DataError: (when it runs) a file can't be read to its end.
    """
    source = ChunkSource(chunks, contract)
    # Left to itself, Ray cuts the blocks of few tasks into many small ones.
    return ray.data.read_datasource(source, override_num_blocks=len(source.get_read_tasks(1)))


def checked(raw: Raw, contract: Contract, *, sparse: bool) -> pa.Table:
    """One block: good rows typed, then bad rows. With `sparse`, a column may be left out."""
    table = filled(raw.table, contract.columns) if sparse else raw.table
    done = conform(table, contract, require_target=True)
    good = done.table
    empty = pa.nulls(len(good), pa.string())
    good = good.append_column(REASONS, empty).append_column(RAW, empty)
    if not done.bad and not raw.bad:
        return good
    bad = bad_rows(table, done, raw)
    columns = {name: bad.get(name, pa.nulls(len(bad[ROW]), good.schema.field(name).type))
               for name in good.column_names}
    return pa.concat_tables([good, pa.table(columns, schema=good.schema)])


def filled(table: pa.Table, names: Iterable[str]) -> pa.Table:
    """The table with a column of nulls for each of `names` that it lacks."""
    for name in names:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), pa.string()))
    return table


def bad_rows(table: pa.Table, done: Conformed, raw: Raw) -> dict[str, pa.Array]:
    """`__file`, `__row`, `__reasons` and `__raw` of the rows that broke a rule."""
    by_row: dict[int, list[Violation]] = {}
    whole = [violation for violation in done.bad if violation.index < 0]
    for violation in done.bad:
        if violation.index >= 0:
            by_row.setdefault(violation.index, []).append(violation)
    if whole:
        for index in range(len(table)):
            by_row[index] = whole + by_row.get(index, [])
    indices = sorted(by_row)
    taken = table.take(pa.array(indices, pa.int64()))
    files = taken[FILE].to_pylist() + [raw.file] * len(raw.bad)
    rows = taken[ROW].to_pylist() + [violation.row for violation, _ in raw.bad]
    reasons = [reasons_text(by_row[i]) for i in indices]
    reasons += [reasons_text([violation]) for violation, _ in raw.bad]
    texts = [json.dumps({k: _short(v) for k, v in row.items() if k not in (FILE, ROW)})
             for row in taken.to_pylist()] + [text[:SHOWN_TEXT] for _, text in raw.bad]
    return {FILE: pa.array(np.array(files, np.int32)), ROW: pa.array(rows, pa.int64()),
            REASONS: pa.array(reasons, pa.string()), RAW: pa.array(texts, pa.string())}


def reasons_text(violations: Sequence[Violation]) -> str:
    return json.dumps([{"column": v.column, "rule": v.rule, "got": v.got} for v in violations])


def _short(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)[:SHOWN_TEXT]
