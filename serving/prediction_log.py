"""Writes the prediction log of one replica, behind the answers: they never wait for it."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from raymill.monitoring.store import META, Stream, finish_left, log_folder, sweep
from raymill.specs import seconds as in_seconds

from .masks import Masks, salt_of
from .spec import LogSpec

if TYPE_CHECKING:
    from raymill.data.contract import Contract

    from .answers import Request
    from .log_shipping import Shipping
    from .scorer import Scored

MOST_ROWS, MOST_BYTES = 200_000, 64 * 2**20  # that wait for the disk
_EVERY_S = 1.0
_PART_BYTES, _PART_S = 32 * 2**20, 900.0  # a stream becomes a Parquet file
_SWEEP_S = 3600.0
_log = logging.getLogger("raymill.serving")


@dataclass(slots=True)
class _Entry:
    """An answer that waits to be written; `passed` only where its inputs were sampled."""

    id: str
    trace: str
    time: float
    ms: float
    scored_of: tuple[int, str]  # version, variant
    answered: pa.Table
    passed: pa.Table | None
    start: int
    count: int
    bytes: int


class PredictionLog:
    """A bounded buffer, and a thread that writes it once a second.

    When the buffer is full, or the disk fails, answers are not logged but counted: in
    `on_dropped`, and in the log itself at the place where they are missing.

    Args:
        on_written, on_dropped: told of numbers of rows, from any thread.
    """

    def __init__(
        self,
        home: Path,
        name: str,
        contract: Contract,
        spec: LogSpec,
        *,
        on_written: Callable[[int], None] = lambda rows: None,
        on_dropped: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self.folder = log_folder(home, name)
        self._masks = Masks(contract, spec.sensitive, salt_of(home))
        self._spec, self._on_written, self._on_dropped = spec, on_written, on_dropped
        self._sample = random.Random().random
        self._lock = threading.Lock()
        self._entries: list[_Entry] = []
        self._rows = self._bytes = self._dropped = 0
        self._stream: Stream | None = None
        self._swept = self._told = -_SWEEP_S
        self._closing = threading.Event()
        self._shipping = _shipping(self.folder, spec.store) if spec.store else None
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def add(self, request: Request, scored: Scored, seconds: float) -> None:
        """Log an answer that took `seconds`, or count it as dropped; takes microseconds."""
        sampled = self._sample() < self._spec.inputs
        size = scored.count * 8 * (scored.answered.num_columns + 4)
        if sampled:
            size += scored.passed.get_total_buffer_size() * scored.count // len(scored.passed)
        entry = _Entry(
            request.id, request.trace, time.time(), 1000 * seconds, (scored.version, scored.variant),
            scored.answered, scored.passed if sampled else None, scored.start, scored.count, size)
        with self._lock:
            full = self._rows + entry.count > MOST_ROWS or self._bytes + size > MOST_BYTES
            if full:
                self._dropped += entry.count
            else:
                self._entries.append(entry)
                self._rows += entry.count
                self._bytes += size
        if full:
            self._on_dropped(entry.count)

    def close(self) -> None:
        """Write what waits, and turn the stream into a Parquet file."""
        self._closing.set()
        self._thread.join(10)
        if self._shipping is not None:
            self._shipping.close()

    def _run(self) -> None:
        ended = False
        while not ended:
            ended = self._closing.wait(_EVERY_S)
            self._write_waiting()
            if self._stream is not None and (ended or self._is_full(self._stream)):
                self._guarded(self._finish)
            if not ended and time.monotonic() - self._swept > _SWEEP_S:
                self._swept = time.monotonic()
                self._guarded(self._keep_house)

    def _write_waiting(self) -> None:
        with self._lock:
            entries, self._entries = self._entries, []
            rows, self._rows, self._bytes = self._rows, 0, 0
            dropped, self._dropped = self._dropped, 0
        written = 0
        for some in _runs(entries):
            if self._guarded(partial(self._append, some, dropped)):
                written += sum(entry.count for entry in some)
                dropped = 0
        if written:
            self._on_written(written)
        if lost := rows - written:
            self._on_dropped(lost)
        with self._lock:
            self._dropped += dropped + lost

    def _append(self, entries: Sequence[_Entry], dropped: int) -> None:
        batch = self._batch(entries, dropped)
        if self._stream is not None and not self._stream.schema.equals(batch.schema):
            self._finish()
        if self._stream is None:
            self._stream = Stream(self.folder, batch.schema)
        self._stream.append(batch)

    def _finish(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.finish()

    def _is_full(self, stream: Stream) -> bool:
        old = time.monotonic() - stream.begun > _PART_S
        return old or stream.bytes > _PART_BYTES or stream.day != datetime.now(UTC).date()

    def _keep_house(self) -> None:
        finish_left(self.folder)
        removed = sweep(self.folder, in_seconds(self._spec.keep), self._spec.max_gb * 2**30)
        if removed:
            _log.warning("removed %d old files of %s", removed, self.folder)

    def _guarded(self, act: Callable[[], None]) -> bool:
        """Whether `act` did it; a disk that fails must not end the log's thread."""
        try:
            act()
            return True
        except Exception as error:  # noqa: BLE001 - counted by the caller, and told
            if self._stream is not None:  # what is whole in it stays readable
                self._stream.close()
                self._stream = None
            if time.monotonic() - self._told > 60:
                self._told = time.monotonic()
                _log.error("the prediction log can't be written: %s", type(error).__name__)
            return False

    def _batch(self, entries: Sequence[_Entry], dropped: int) -> pa.RecordBatch:
        """Rows without inputs first, then those with them: each kind is joined in one piece."""
        plain = [entry for entry in entries if entry.passed is None]
        sampled = [entry for entry in entries if entry.passed is not None]
        ordered = [*plain, *sampled]
        answers = pa.concat_tables(_joined([(e.answered, e.start, e.count) for e in ordered]))
        count = sum(entry.count for entry in plain)
        inputs = [pa.Table.from_arrays([pa.nulls(count, field.type) for field in self._masks.schema],
                                       schema=self._masks.schema)] if count else []
        if sampled:
            passed = _joined([(e.passed, e.start, e.count) for e in sampled])
            inputs.append(self._masks(pa.concat_tables(passed)))
        columns = [*_meta(ordered, dropped), *answers.columns, *pa.concat_tables(inputs).columns]
        names = [*META.names, *answers.column_names, *self._masks.schema.names]
        return pa.Table.from_arrays(columns, names=names).combine_chunks().to_batches()[0]


def _shipping(folder: Path, store: str) -> Shipping:
    from .log_shipping import Shipping

    return Shipping(folder, store)


def _runs(entries: Sequence[_Entry]) -> Iterator[Sequence[_Entry]]:
    """Entries in their order, parted where the columns of the answers change."""
    at = 0
    for end in range(1, len(entries) + 1):
        if end == len(entries) or not _alike(entries[at], entries[end]):
            yield entries[at:end]
            at = end


def _alike(one: _Entry, other: _Entry) -> bool:
    return one.answered is other.answered or bool(
        one.answered.schema.equals(other.answered.schema))


def _joined(slices: Sequence[tuple[pa.Table, int, int]]) -> list[pa.Table]:
    """The slices, those that follow each other in one table taken together."""
    tables: list[pa.Table] = []
    table, start, count = slices[0]
    for following, at, more in slices[1:]:
        if following is table and at == start + count:
            count += more
            continue
        tables.append(table.slice(start, count))
        table, start, count = following, at, more
    return [*tables, table.slice(start, count)]


def _meta(entries: Sequence[_Entry], dropped: int) -> list[pa.Array]:
    """The columns of `META`."""
    counts = np.array([entry.count for entry in entries])
    index = np.repeat(np.arange(len(entries)), counts)
    rows = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
    lost = np.zeros(len(index), np.int32)
    lost[0] = min(dropped, 2**31 - 1)
    answer = {
        "id": [entry.id for entry in entries],
        "time": [int(entry.time * 1e6) for entry in entries],
        "version": [entry.scored_of[0] for entry in entries],
        "variant": [entry.scored_of[1] for entry in entries],
        "latency_ms": [entry.ms for entry in entries],
        "trace": [entry.trace or None for entry in entries],
        "sampled": [entry.passed is not None for entry in entries],
    }
    each = {name: pa.array(values, META.field(name).type).take(pa.array(index))
            for name, values in answer.items()}
    each |= {"row": pa.array(rows, pa.int32()), "dropped_before": pa.array(lost)}
    return [each[name] for name in META.names]
