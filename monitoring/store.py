"""The prediction log on disk: streams that replicas append to, and the Parquet files they become.

A replica appends to `<home>/predictions/NAME/open/STEM.arrows`, an Arrow IPC stream that a kill
leaves readable up to its last whole batch. When it is long or old enough, it becomes
`date=YYYY-MM-DD/STEM.parquet` (the UTC day it was begun), written beside, synced and renamed.
Where both are there, the Parquet file counts.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from raymill.failpoints import failpoint

if TYPE_CHECKING:
    from raymill.stores import Store

LABELS = "labels"
INPUT = "input."  # begins the names of the input columns
META = pa.schema([
    ("id", pa.string()),  # of the answer; its row k is ID.k, row 0 also ID
    ("row", pa.int32()),
    ("time", pa.timestamp("us", "UTC")),  # when it was answered
    ("version", pa.int32()),
    ("variant", pa.string()),
    ("latency_ms", pa.float32()),  # of the request in its replica
    ("trace", pa.string()),  # trace id of the client's traceparent
    ("sampled", pa.bool_()),  # the row's inputs are logged
    ("dropped_before", pa.int32()),  # rows that were lost between this one and the one before
])
_OPEN = "open"
_DAY = re.compile(r"date=(\d{4}-\d{2}-\d{2})")


def log_folder(home: Path, name: str) -> Path:
    """Where the predictions of a model's services are kept."""
    return home / "predictions" / name


class Stream:
    """What one replica appends to. It stays locked while its process lives.

    Args:
        log: the folder of the log. schema: of all its batches.

    Raises:
        OSError: the folder can't be written.
    """

    def __init__(self, log: Path, schema: pa.Schema) -> None:
        folder = log / _OPEN
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        now = datetime.now(UTC)
        stem = f"{now:%Y%m%dT%H%M%S}-{os.getpid()}-{secrets.token_hex(4)}"
        self.path, self.schema, self.day = folder / f"{stem}.arrows", schema, now.date()
        self.begun, self.bytes = time.monotonic(), 0
        self._log = log
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._put(schema.serialize())

    def append(self, batch: pa.RecordBatch) -> None:
        """With the system when this returns: it outlives this process, not a loss of power."""
        self._put(batch.serialize())

    def _put(self, message: pa.Buffer) -> None:
        view = memoryview(message)
        self.bytes += len(view)
        while view:
            view = view[os.write(self._file, view):]

    def finish(self) -> None:
        """Turn into a Parquet file."""
        _to_parquet(self._log, self.path)
        self.close()

    def close(self) -> None:
        """Leave it as it is, for others to finish."""
        os.close(self._file)


def finish_left(log: Path) -> int:
    """Turn the streams whose processes have ended into Parquet files; how many."""
    done = 0
    for path in sorted((log / _OPEN).glob("*.arrows")):
        with suppress(FileNotFoundError):  # another was quicker
            file = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _to_parquet(log, path)
                done += 1
            except BlockingIOError:
                continue
            finally:
                os.close(file)
    return done


def _to_parquet(log: Path, stream: Path) -> None:
    target = _twin(log, stream)
    if not target.exists():
        batches = list(read_stream(stream))
        if sum(map(len, batches)):
            _write(pa.Table.from_batches(batches), target)
    failpoint("predictions.before_unlink")
    stream.unlink()


def _write(table: pa.Table, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    pq.write_table(table, beside, compression="zstd")
    beside.chmod(0o600)
    for path in (beside, target.parent):
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
        if path == beside:
            beside.rename(target)


def _twin(log: Path, stream: Path) -> Path:
    day = datetime.strptime(stream.name[:8], "%Y%m%d").date()
    return log / f"date={day}" / f"{stream.stem}.parquet"


def read_stream(path: Path) -> Iterator[pa.RecordBatch]:
    """The whole batches of a stream; one that is cut off at its end is not there."""
    with pa.OSFile(str(path)) as file:
        try:
            yield from pa.ipc.open_stream(file)
        except (pa.ArrowInvalid, OSError):
            return


def parts(log: Path, first: date | None = None, last: date | None = None) -> list[Path]:
    """The log's files, oldest first: those begun on the days `first` to `last`."""
    streams = sorted((log / _OPEN).glob("*.arrows"))  # before the Parquet files, or one is missed
    files = list(log.glob("date=*/*.parquet"))
    known = {path.stem for path in files}
    files += [path for path in streams if path.stem not in known]
    first, last = first or date.min, last or date.max
    return sorted((path for path in files if first <= _day(path) <= last), key=lambda p: p.stem)


def _day(part: Path) -> date:
    return datetime.strptime(part.name[:8], "%Y%m%d").date()


def read_part(log: Path, part: Path, columns: list[str] | None = None) -> pa.Table | None:
    """The rows of a part with those of `columns` that it has; None when it was swept away."""
    if part.suffix == ".arrows":
        try:
            batches = list(read_stream(part))
        except FileNotFoundError:
            return read_part(log, _twin(log, part), columns)  # finished meanwhile
        if not batches:
            return None
        table = pa.Table.from_batches(batches)
        return table if columns is None else table.select(
            [name for name in columns if name in table.column_names])
    try:
        names = pq.read_schema(part).names
        wanted = None if columns is None else [name for name in columns if name in names]
        return pq.read_table(part, columns=wanted, partitioning=None)
    except FileNotFoundError:
        return None


def ship(log: Path, place: Store, known: set[str]) -> None:
    """Put the finished files that are not `known` into a store, under their own names; those that
    are there are known then.

    Raises:
        OSError: the store does not answer.
    """
    for path in sorted(log.glob("date=*/*.parquet")):
        name = f"{path.parent.name}/{path.name}"
        if name not in known:
            with suppress(FileNotFoundError):  # swept away
                if not place.has(name):  # another replica of this machine may have been first
                    place.put(name, path)
            known.add(name)


def sweep(log: Path, keep_s: float, most_bytes: float) -> int:
    """Remove what is older than `keep_s`, then the oldest parts beyond `most_bytes`; the number of
    removed files. Labels go with the predictions of their day."""
    last = datetime.now(UTC).date() - timedelta(seconds=keep_s)
    removed = 0
    for folder in log.glob("date=*"):
        match = _DAY.fullmatch(folder.name)
        if match and date.fromisoformat(match[1]) < last:
            removed += sum(1 for _ in folder.glob("*.parquet"))
            shutil.rmtree(folder, ignore_errors=True)
    for path in (log / LABELS).glob("*.jsonl"):
        if date.fromisoformat(path.stem) < last:
            path.unlink(missing_ok=True)
            removed += 1
    files = sorted(log.glob("date=*/*.parquet"), key=lambda path: path.stem)
    sizes = [path.stat().st_size for path in files]
    over = sum(sizes) - most_bytes
    for path, size in zip(files, sizes, strict=True):
        if over <= 0:
            break
        path.unlink(missing_ok=True)
        over -= size
        removed += 1
    return removed
