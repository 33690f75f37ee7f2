"""Chunks to raw tables: text as text, with hidden columns for file and row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raymill.errors import DataError, Problem

from .chunks import Chunk
from .conform import FILE, ROW, Violation

NULLS = ["", "#N/A", "N/A", "NA", "NULL", "NaN", "n/a", "nan", "null", "<NA>"]
BLOCK = 64 * 2**20


@dataclass
class Raw:
    """A table with `__file` and `__row`, and the rows that could not be read at all."""

    table: pa.Table
    file: int
    bad: list[tuple[Violation, str]] = field(default_factory=list)  # with the row's own text


def read_chunk(chunk: Chunk, label: str = "") -> Iterator[Raw]:
    """The chunk's rows, in their order. `label` names the class column of image folders.

    Raises:
        DataError: the file itself is broken.
    """
    kind = chunk.files[0].format
    try:
        if kind == "csv":
            yield from _csv(chunk)
        elif kind == "jsonl":
            yield _jsonl(chunk)
        elif kind == "parquet":
            yield from _parquet(chunk)
        else:
            yield _images(chunk, label)
    except (pa.ArrowException, OSError) as error:
        raise DataError(Problem(
            rule=f"a {kind} file must be readable to its end",
            got=str(error).split("\n")[0][:200].rstrip("."), where=f"{chunk.files[0].name} rows from "
            f"{chunk.first}", cure="Write the file again.")) from None


def _numbered(table: pa.Table, file: int, numbers: Any) -> pa.Table:
    files = pa.array(np.full(len(table), file, np.int32))
    return table.append_column(FILE, files).append_column(ROW, pa.array(numbers, pa.int64()))


def _bytes(chunk: Chunk) -> bytes:
    with chunk.files[0].open() as opened:
        data: bytes = opened.read_at(chunk.stop - chunk.start, chunk.start)
    return data


def _csv(chunk: Chunk) -> Iterator[Raw]:
    ragged: list[Any] = []

    def skip(row: Any) -> str:
        ragged.append(row)
        return "skip"

    size = chunk.stop - chunk.start
    with chunk.files[0].open() as opened:
        opened.seek(chunk.start)
        whole = size <= BLOCK
        reader = pacsv.open_csv(
            pa.BufferReader(opened.read(size)) if whole else opened,
            read_options=pacsv.ReadOptions(column_names=list(chunk.columns), use_threads=False,
                                           block_size=size + 1 if whole else BLOCK),
            parse_options=pacsv.ParseOptions(delimiter=chunk.delimiter, newlines_in_values=True,
                                             invalid_row_handler=skip),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(chunk.columns, pa.binary()), strings_can_be_null=True,
                null_values=NULLS),
        )
        done = 0
        for batch in reader:
            table = pa.Table.from_batches([batch])
            good, done = _good_numbers(done, len(table), [row.number for row in ragged])
            bad, ragged[:] = ([row for row in ragged if row.number <= done],
                              [row for row in ragged if row.number > done])
            yield _decoded(Raw(_numbered(table, chunk.file, good + chunk.first - 1),
                               chunk.file, [_ragged(row, chunk.first) for row in bad]))
        if ragged:
            empty = pa.table({name: pa.array([], pa.string()) for name in chunk.columns})
            yield Raw(_numbered(empty, chunk.file, []), chunk.file,
                      [_ragged(row, chunk.first) for row in ragged])


def _good_numbers(done: int, count: int, bad: list[int]) -> tuple[NDArray[np.int64], int]:
    """The numbers of the next `count` readable rows, and the last of them."""
    numbers = np.arange(done + 1, done + 1 + count + len(bad))
    good = numbers[~np.isin(numbers, bad)][:count]
    return good, int(good[-1]) if count else done


def _ragged(row: Any, first: int) -> tuple[Violation, str]:
    rule = f"a row has {row.expected_columns} fields"
    return Violation(first + row.number - 1, "", rule, str(row.actual_columns)), row.text


def _decoded(raw: Raw) -> Raw:
    """Bytes as text; a row with bytes that are not UTF-8 is bad."""
    table = raw.table
    broken: dict[int, str] = {}
    for index, name in enumerate(table.column_names):
        if not pa.types.is_binary(table[name].type):
            continue
        try:
            text = table[name].cast(pa.string())
        except pa.ArrowInvalid:
            values = table[name].to_pylist()
            for i, value in enumerate(values):
                try:
                    values[i] = None if value is None else value.decode("utf-8")
                except UnicodeDecodeError:
                    values[i] = None
                    broken.setdefault(i, name)
            text = pa.array(values, pa.string())
        table = table.set_column(index, name, text)
    if not broken:
        return Raw(table, raw.file, raw.bad)
    rows = raw.table[ROW].to_numpy()
    bad = raw.bad + [(Violation(int(rows[i]), name, f"{name} must be UTF-8 text", "other bytes"), "")
                     for i, name in broken.items()]
    keep = np.ones(len(table), bool)
    keep[list(broken)] = False
    return Raw(table.filter(pa.array(keep)), raw.file, bad)


def _jsonl(chunk: Chunk) -> Raw:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    bad: list[tuple[Violation, str]] = []
    number = chunk.first - 1
    for line in _bytes(chunk).split(b"\n"):
        if not line.strip(b"\r"):
            continue
        number += 1
        try:
            rows.append(decode(line))
            numbers.append(number)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            text = line[:1000].decode("utf-8", "replace")
            bad.append((Violation(number, "", "a line must be a JSON object", str(error)[:80]), text))
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: column([row.get(name) for row in rows]) for name in names} or
                     {"": pa.nulls(len(rows))})
    return Raw(_numbered(table, chunk.file, numbers), chunk.file, bad)


def column(values: list[Any]) -> pa.Array:
    """JSON values of one column; text where they are of several kinds."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {int, float} and kinds:
        try:
            return pa.array(values, pa.float64() if float in kinds else pa.int64())
        except OverflowError:
            return pa.array([None if v is None else float(v) for v in values], pa.float64())
    if len(kinds) <= 1 and kinds <= {str, bool}:
        return pa.array(values)
    return pa.array([value if value is None or isinstance(value, str)
                     else msgspec.json.encode(value).decode() for value in values], pa.string())


def _parquet(chunk: Chunk) -> Iterator[Raw]:
    with chunk.files[0].open() as opened, pq.ParquetFile(opened) as parquet:
        first = chunk.first
        for batch in parquet.iter_batches(batch_size=262_144, row_groups=list(chunk.groups)):
            table = pa.Table.from_batches([batch]).replace_schema_metadata(None)
            yield Raw(_numbered(table, chunk.file, np.arange(first, first + len(table))),
                      chunk.file)
            first += len(table)


def _images(chunk: Chunk, label: str) -> Raw:
    images, labels = [], []
    for file in chunk.files:
        with file.open() as opened:
            images.append(opened.read())
        labels.append(file.label)
    table = pa.table({"image": pa.array(images, pa.binary()), label or "label": pa.array(labels)})
    files = np.arange(chunk.file, chunk.file + len(images), dtype=np.int32)
    ones = pa.array(np.ones(len(images), np.int64))
    return Raw(table.append_column(FILE, pa.array(files)).append_column(ROW, ones), chunk.file)
