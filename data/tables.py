"""Rows to predict, from a file or standard input, checked by the contract; no Ray needed."""

from __future__ import annotations

import base64
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from raymill.errors import DataError, Problem

from .chunks import Chunk, head_of
from .conform import conform
from .contract import Contract
from .read import read_chunk
from .source import DataFile, FileFormat, discover

LISTED = 50  # problems that one error names


def read_rows(path: str | Path, contract: Contract) -> pa.Table:
    """The contract's features of every row in a CSV, JSONL or Parquet file, in their order.

    `path` may be a glob, a folder or `s3://`; `-` is standard input, JSONL, Parquet or CSV as its
    first bytes say. Columns that aren't features (the target too) are left out.

    Raises:
        DataError: the file can't be read, or rows break the contract (each with file and row).
    """
    if str(path) != "-":
        return _checked(discover(str(path), Path.cwd()), contract)
    data = sys.stdin.buffer.read()
    if not data.strip():
        raise DataError(Problem(rule="standard input must hold rows", got="nothing"))
    with tempfile.NamedTemporaryFile() as spooled:
        spooled.write(data)
        spooled.flush()
        file = DataFile(spooled.name, "stdin", len(data), _sniffed(data))
        return _checked([file], contract)


def json_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as requests hold them: times as ISO text, bytes as base64, what is missing left out."""
    columns = {name: _json_values(table[name]) for name in table.column_names}
    return [{name: value for name, value in zip(columns, row, strict=True) if value is not None}
            for row in zip(*columns.values(), strict=True)]


def _json_values(column: pa.ChunkedArray) -> list[Any]:
    values: list[Any] = column.to_pylist()
    if pa.types.is_binary(column.type):
        return [None if v is None else base64.b64encode(v).decode("ascii") for v in values]
    if pa.types.is_timestamp(column.type):
        return [None if v is None else v.isoformat() for v in values]
    return values


def _sniffed(data: bytes) -> FileFormat:
    if data.startswith(b"PAR1"):
        return "parquet"
    return "jsonl" if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else "csv"


def _checked(files: list[DataFile], contract: Contract) -> pa.Table:
    """The good rows of all files, when there are no others."""
    features = contract.features
    tables: list[pa.Table] = []
    problems: list[Problem] = []
    for index, file in enumerate(files):
        for raw in read_chunk(_whole(index, file), contract.target):
            table = raw.table
            if file.format == "jsonl":
                for name in set(features) - set(table.column_names):
                    table = table.append_column(name, pa.nulls(len(table), pa.string()))
            done = conform(table, contract)
            problems += [
                Problem(rule=v.rule, got=v.got, where=f"{file.name} row {v.row}" if v.row else
                        file.name)
                for v in (*(violation for violation, _ in raw.bad), *done.bad)]
            tables.append(done.table.select(features))
    if problems:
        raise DataError(list(_first(problems)))
    return pa.concat_tables(tables) if tables else pa.table(
        {name: pa.nulls(0, contract.columns[name].arrow) for name in features})


def _whole(index: int, file: DataFile) -> Chunk:
    """The file as one chunk.

    Raises:
        DataError: its start says that it is broken.
    """
    if file.format == "images":
        return Chunk((file,), index, 1, 1)
    head = head_of(file)
    if head.problem is not None:
        raise DataError(head.problem)
    return Chunk((file,), index, 1, sum(rows for rows, _ in head.groups), head.start, file.size,
                 tuple(range(len(head.groups))), head.columns, head.delimiter)


def _first(problems: list[Problem]) -> Iterator[Problem]:
    yield from problems[:LISTED]
    if len(problems) > LISTED:
        yield Problem(rule=f"{len(problems) - LISTED:,} more problems like these")
