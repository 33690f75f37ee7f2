"""True labels of answered rows: a line each, on disk before they are acknowledged.

`<home>/predictions/NAME/labels/YYYY-MM-DD.jsonl` (the UTC day they came). Of several labels of one
row the last counts; the earlier ones stay as its history.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow as pa

from .store import LABELS

SCHEMA = pa.schema([
    ("id", pa.string()), ("row", pa.int32()), ("label", pa.string()),
    ("labelled", pa.timestamp("us", "UTC")), ("by", pa.string()),
])


class Label(msgspec.Struct, frozen=True):
    """The label of row `row` of the answer `id`: a class, or a number as text.

    `labelled`: seconds since 1970. `by`: the holder of the API key that sent it.
    """

    id: str
    row: int
    label: str
    labelled: float
    by: str = ""


_LINE = msgspec.json.Decoder(Label)


def append(log: Path, labels: Sequence[Label]) -> None:
    """Add labels; they are on disk when this returns, all of them or none.

    Raises:
        OSError: they could not be written.
    """
    folder = log / LABELS
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{datetime.now(UTC):%Y-%m-%d}.jsonl"
    lines = b"".join(msgspec.json.encode(label) + b"\n" for label in labels)
    new = not path.exists()
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        end = _whole(file)
        os.ftruncate(file, end)  # what a killed writer began was never acknowledged
        os.lseek(file, end, os.SEEK_SET)
        view = memoryview(lines)
        try:
            while view:
                view = view[os.write(file, view):]
            os.fsync(file)
        except OSError:
            os.ftruncate(file, end)
            raise
    finally:
        os.close(file)
    if new:
        directory = os.open(folder, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)


def _whole(file: int) -> int:
    """Where the last whole line ends."""
    end = size = os.fstat(file).st_size
    while end > 0:
        low = max(0, end - 4096)
        at = os.pread(file, end - low, low).rfind(b"\n")
        if at >= 0:
            return low + at + 1
        end = low
    return 0 if size else size


def size_of(log: Path) -> int:
    """Bytes of all labels."""
    return sum(path.stat().st_size for path in (log / LABELS).glob("*.jsonl"))


def history(log: Path) -> pa.Table:
    """Every label as it came, oldest first."""
    found: list[Label] = []
    for path in sorted((log / LABELS).glob("*.jsonl")):
        for line in path.read_bytes().split(b"\n")[:-1]:
            found.append(_LINE.decode(line))
    times = pa.array([int(each.labelled * 1e6) for each in found], pa.int64())
    return pa.table([
        pa.array([each.id for each in found], pa.string()),
        pa.array([each.row for each in found], pa.int32()),
        pa.array([each.label for each in found], pa.string()),
        times.cast(SCHEMA.field("labelled").type),
        pa.array([each.by for each in found], pa.string()),
    ], schema=SCHEMA)


def latest(log: Path) -> pa.Table:
    """The label that counts of each row."""
    table = history(log)
    last = {key: index for index, key in enumerate(
        zip(table["id"].to_pylist(), table["row"].to_pylist(), strict=True))}
    return table.take(pa.array(sorted(last.values()), pa.int64()))
