"""How files are cut into chunks that are read in parallel, each knowing its rows' numbers."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raymill.errors import DataError, Problem

from .remote import gather
from .source import DataFile

PIECE = 32 * 2**20  # bytes hashed and scanned by one task
SMALL = 256  # files that one task scans, at most
ROW_GROUP_BYTES = 64 * 2**20
DELIMITERS = ",;\t|"
NEWLINE, QUOTE, RETURN = 10, 34, 13


@dataclass(frozen=True)
class Chunk:
    """Rows of one file: bytes `[start, stop)` of text, or row groups of Parquet.

    `first` is the number of the first row, from 1, in its file; `file` the file's index in the
    data set. For images, `files` are whole files, the first of them at index `file`.
    """

    files: tuple[DataFile, ...]
    file: int
    first: int
    rows: int
    start: int = 0
    stop: int = 0
    groups: tuple[int, ...] = ()
    columns: tuple[str, ...] = ()
    delimiter: str = ","


@dataclass(frozen=True)
class Piece:
    """What a scan of one piece of a file found.

    `breaks[p]` is (offset of the first line break, of the last, non-empty lines between them), or
    None, given that the piece starts outside (p = 0) or inside (p = 1) of a quoted field.
    """

    digest: bytes
    size: int
    last: int = 0
    quotes: int = 0
    stray: tuple[bool, bool] = (False, False)
    breaks: tuple[tuple[int, int, int] | None, tuple[int, int, int] | None] = (None, None)


@dataclass
class Scan:
    """All that one reading of a file's bytes tells: its digest, columns and chunks."""

    sha256: str
    rows: int = 0
    columns: tuple[str, ...] = ()
    chunks: list[Chunk] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def scan(files: Sequence[DataFile], said: Callable[[int], None] = lambda done: None) -> list[Scan]:
    """Every file hashed and cut, in parallel. A broken file's problems are in its scan."""
    jobs = _jobs(files)
    arguments = [([files[i] for i, _ in job], [offset for _, offset in job]) for job in jobs]
    found: list[list[Piece | Problem]] = [[] for _ in files]
    results = gather(_scan_pieces, arguments, said)
    for job, pieces in zip(jobs, results, strict=True):
        for (index, _), piece in zip(job, pieces, strict=True):
            found[index].append(piece)
    headers = gather(_heads, [(list(part),) for part in _batches(
        [file for file in files if file.format != "images"])])
    heads = iter([head for batch in headers for head in batch])
    return [_combine(i, file, found[i], None if file.format == "images" else next(heads))
            for i, file in enumerate(files)]


def _batches(files: list[DataFile]) -> Iterator[list[DataFile]]:
    for low in range(0, len(files), SMALL):
        yield files[low : low + SMALL]


def _jobs(files: Sequence[DataFile]) -> list[list[tuple[int, int]]]:
    """(file, offset) of every piece, so grouped that a task has about a piece's bytes."""
    jobs: list[list[tuple[int, int]]] = []
    room = 0
    for index, file in enumerate(files):
        for offset in range(0, max(file.size, 1), PIECE):
            size = min(PIECE, file.size - offset)
            if room < size or len(jobs[-1]) >= SMALL:
                jobs.append([])
                room = PIECE
            jobs[-1].append((index, offset))
            room -= size
    return jobs


def _scan_pieces(files: list[DataFile], offsets: list[int]) -> list[Piece | Problem]:
    return [_scan_piece(file, offset) for file, offset in zip(files, offsets, strict=True)]


def _scan_piece(file: DataFile, offset: int) -> Piece | Problem:
    try:
        with file.open() as opened:
            data = opened.read_at(min(PIECE, file.size - offset), offset)
    except DataError as error:
        return error.problems[0]
    except OSError as error:
        return Problem(rule="a data file must be readable", got=str(error)[:200], where=file.name)
    if len(data) != min(PIECE, file.size - offset):
        return Problem(rule="a data file must not change while it is read", where=file.name)
    digest = hashlib.sha256(data).digest()
    if file.format not in ("csv", "jsonl"):
        return Piece(digest, len(data))
    return _lines(data, digest, quoted=file.format == "csv")


def _lines(data: bytes, digest: bytes, *, quoted: bool) -> Piece:
    array = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(array == QUOTE) if quoted else np.zeros(0, np.int64)
    newlines = np.flatnonzero(array == NEWLINE)
    parity = np.searchsorted(quotes, newlines) % 2
    breaks = tuple(_span(array, newlines[parity == p]) for p in (0, 1))
    strays = tuple(_stray(array, quotes, p) for p in (0, 1))
    return Piece(digest, len(data), int(array[-1]), len(quotes), (strays[0], strays[1]),
                 (breaks[0], breaks[1]))


def _span(
    array: NDArray[np.uint8], breaks: NDArray[np.int64]
) -> tuple[int, int, int] | None:
    if not len(breaks):
        return None
    lengths = np.diff(breaks) - 1
    empty = (lengths == 0) | ((lengths == 1) & (array[breaks[1:] - 1] == RETURN))
    return int(breaks[0]), int(breaks[-1]), int(len(lengths) - empty.sum())


def _stray(array: NDArray[np.uint8], quotes: NDArray[np.int64], start: int) -> bool:
    """Whether a quote stands where none can open or close a field: parity then means nothing."""
    opening = quotes[start::2]
    closing = quotes[1 - start :: 2]
    before = array[opening[opening > 0] - 1]
    after = array[closing[closing < len(array) - 1] + 1]
    edges = [*map(ord, DELIMITERS), NEWLINE, RETURN, QUOTE]
    bom = [0xBF]
    return bool((~np.isin(before, edges + bom)).any() or (~np.isin(after, edges)).any())


@dataclass(frozen=True)
class Head:
    """The start of a file: its columns, and for CSV the delimiter and the first row's offset."""

    columns: tuple[str, ...] = ()
    delimiter: str = ","
    start: int = 0
    groups: tuple[tuple[int, int], ...] = ()  # Parquet: rows and bytes of each row group
    problem: Problem | None = None


def _heads(files: list[DataFile]) -> list[Head]:
    return [head_of(file) for file in files]


def head_of(file: DataFile) -> Head:
    try:
        if file.format == "parquet":
            return _parquet_head(file)
        return _csv_head(file) if file.format == "csv" else Head()
    except DataError as error:
        return Head(problem=error.problems[0])


def _parquet_head(file: DataFile) -> Head:
    try:
        with file.open() as opened, pq.ParquetFile(opened) as parquet:
            meta = parquet.metadata
            groups = tuple((meta.row_group(i).num_rows, meta.row_group(i).total_byte_size)
                           for i in range(meta.num_row_groups))
            return Head(tuple(parquet.schema_arrow.names), groups=groups)
    except (pa.ArrowException, OSError) as error:
        return Head(problem=Problem(
            rule="a Parquet file must be whole", got=str(error).split("\n")[0][:160].rstrip("."),
            where=file.name, cure="It is truncated or no Parquet file: write it again."))


def _csv_head(file: DataFile) -> Head:
    with file.open() as opened:
        data = opened.read_at(min(file.size, 2**20), 0)
    stop, inside = -1, False
    for position, byte in enumerate(data):
        if byte == QUOTE:
            inside = not inside
        elif byte == NEWLINE and not inside:
            stop = position
            break
    line = data[: stop if stop >= 0 else len(data)].rstrip(b"\r")
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Head(problem=Problem(rule="a CSV file is UTF-8 text", where=f"{file.name} header",
                                    got=f"byte {data[error.start]:#04x} at {error.start}",
                                    cure="Save it as UTF-8."))
    if not text.strip():
        return Head(problem=Problem(rule="a CSV file starts with the columns' names",
                                    got="an empty line", where=f"{file.name} header"))
    delimiter = max(DELIMITERS, key=text.count) if any(d in text for d in DELIMITERS) else ","
    columns = tuple(_fields(text, delimiter))
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        return Head(problem=Problem(rule="columns have different names", got=f"{twice[0]!r} twice",
                                    where=f"{file.name} header"))
    return Head(columns, delimiter, stop + 1 if stop >= 0 else file.size)


def _fields(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter))


def _combine(index: int, file: DataFile, pieces: list[Piece | Problem], head: Head | None) -> Scan:
    """The scan of a file, from its pieces and its head."""
    digests = [piece.digest for piece in pieces if isinstance(piece, Piece)]
    whole = digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digests)).digest()
    done = Scan(whole.hex())
    done.problems = [piece for piece in pieces if isinstance(piece, Problem)]
    if done.problems:
        return done
    if head is None:
        done.rows, done.columns = 1, ("image",)
        done.chunks = [Chunk((file,), index, 1, 1)]
        return done
    if head.problem is not None:
        done.problems = [head.problem]
        return done
    done.columns = head.columns
    if file.format == "parquet":
        done.chunks = list(_group_chunks(index, file, head))
    else:
        good = [piece for piece in pieces if isinstance(piece, Piece)]
        done.chunks, problem = _line_chunks(index, file, good, head)
        done.problems = [problem] if problem else []
    done.rows = sum(chunk.rows for chunk in done.chunks)
    if done.rows == 0 and not done.problems:
        done.problems = [Problem(rule="a data file must have rows", got="none", where=file.name)]
    return done


def _group_chunks(index: int, file: DataFile, head: Head) -> Iterator[Chunk]:
    first, taken, rows, size = 1, [], 0, 0
    for number, (count, width) in enumerate(head.groups):
        taken.append(number)
        rows, size = rows + count, size + width
        if size >= ROW_GROUP_BYTES or number == len(head.groups) - 1:
            yield Chunk((file,), index, first, rows, groups=tuple(taken), columns=head.columns)
            first, taken, rows, size = first + rows, [], 0, 0


def _line_chunks(
    index: int, file: DataFile, pieces: list[Piece], head: Head
) -> tuple[list[Chunk], Problem | None]:
    """Chunks of text that start and end at line breaks outside of quotes."""
    parities = [int(p) for p in np.cumsum([0, *(piece.quotes for piece in pieces)]) % 2]
    strays = any(piece.stray[p] for piece, p in zip(pieces, parities, strict=False))
    made: dict[str, Any] = {"columns": head.columns, "delimiter": head.delimiter}
    if strays:
        return [Chunk((file,), index, 1, 1, head.start, file.size, **made)], None
    if parities[-1]:
        return [], Problem(rule="a quoted field must be closed", got="a quote left open at the end",
                           where=file.name, cure="Close it, or double quotes inside of a field.")
    cuts = [(0, 0)]  # (offset of a line's start, non-empty lines before it)
    offset, lines, open_since, before = 0, 0, 0, 0
    for piece, parity in zip(pieces, parities, strict=False):
        span = piece.breaks[parity]
        if span is not None:
            first, last, between = span
            length = offset + first - open_since
            ends_cr = before == RETURN and first == 0
            lines += length > (1 if ends_cr else 0)
            cuts.append((offset + first + 1, lines))
            lines += between
            open_since = offset + last + 1
        offset += piece.size
        before = piece.last
    lines += open_since < file.size
    header = 1 if file.format == "csv" else 0
    cuts = [(max(start, head.start), max(count - header, 0)) for start, count in cuts]
    cuts = [cut for i, cut in enumerate(cuts) if i == 0 or cut[0] > cuts[0][0]]
    if len(pieces) == 1:
        cuts = cuts[:1]
    ends = [*cuts[1:], (file.size, lines - header)]
    chunks = [Chunk((file,), index, count + 1, after - count, start, stop, **made)
              for (start, count), (stop, after) in zip(cuts, ends, strict=True) if after > count]
    return chunks, None


def merge_images(chunks: list[Chunk], size: int = 512) -> list[Chunk]:
    """Neighbouring one-image chunks as chunks of up to `size` images."""
    merged: list[Chunk] = []
    for chunk in chunks:
        last = merged[-1] if merged else None
        if (last is not None and chunk.files[0].format == last.files[0].format == "images"
                and len(last.files) < size and chunk.file == last.file + len(last.files)):
            files = last.files + chunk.files
            merged[-1] = Chunk(files, last.file, 1, len(files))
        else:
            merged.append(chunk)
    return merged

