"""Blocks to the files of their splits, and durable JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raymill.stores import Folder, Store

from .conform import FILE, ROW
from .contract import Contract
from .ingest import RAW, REASONS
from .keys import Places, places
from .split import GAP, SPLITS, Plan, assign
from .stats import Summaries, merge, of_table

ROW_GROUP = 32_768


class Written:
    """What was written of some blocks: rows by split, and the summaries of the training rows."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.quarantined = self.in_gap = 0
        self.train: Summaries = {}

    def merge(self, other: Written) -> None:
        for split, count in other.rows.items():
            self.rows[split] = self.rows.get(split, 0) + count
        self.quarantined += other.quarantined
        self.in_gap += other.in_gap
        merge(self.train, other.train)


Handed = tuple[Plan, NDArray[Any], list[str], Places, list[str], Store, Contract]


def write_block(table: pa.Table, handed: Handed) -> Written:
    """Write the rows of one block to their splits, the bad ones to quarantine."""
    layout, cuts, roles, duplicates, names, place, contract = handed
    written = Written()
    if not len(table):
        return written
    where = places(table)
    name = f"part-{where[0] >> 40:06d}-{where[0] & (2**40 - 1):012d}.parquet"
    again = np.isin(where, duplicates[:, 0])
    bad = table[REASONS].is_valid().to_numpy() | again
    if bad.any():
        written.quarantined = int(bad.sum())
        rows = table.filter(pa.array(bad))
        _write(_quarantined(rows, where[bad], duplicates, names), place, f"quarantine/{name}")
    good = table.filter(pa.array(~bad)).drop_columns([REASONS, RAW])
    codes = _codes(good, layout, cuts, roles)
    written.in_gap = int((codes == GAP).sum())
    for code, split in enumerate(SPLITS):
        rows = good.filter(pa.array(codes == code))
        if not len(rows):
            continue
        written.rows[split] = len(rows)
        if split == "train":
            written.train = of_table(rows, contract)
        _write(rows, place, f"{split}/{name}")
    return written


def _codes(
    good: pa.Table, layout: Plan, cuts: NDArray[Any], roles: list[str]
) -> NDArray[np.int8]:
    """The split of each row: as its file says, else as the plan does."""
    given = np.array([{"validation": 1, "test": 2}.get(role, -1) for role in roles], np.int8)
    codes: NDArray[np.int8] = given[good[FILE].to_numpy()]
    if (codes < 0).any():
        codes = np.where(codes < 0, assign(good, layout, cuts), codes)
    return codes


def _quarantined(
    rows: pa.Table, where: Places, duplicates: Places, names: list[str]
) -> pa.Table:
    """file, row, reasons (JSON), raw (the row as it was)."""
    reasons, raws = rows[REASONS].to_pylist(), rows[RAW].to_pylist()
    typed = rows.drop_columns([REASONS, RAW, FILE, ROW])
    firsts = dict(duplicates[np.isin(duplicates[:, 0], where)].tolist())
    for index, place in enumerate(where.tolist()):
        if reasons[index] is not None:
            continue
        first = firsts[place]
        reasons[index] = json.dumps([{
            "column": "", "rule": "no key or unique value may stand twice",
            "got": f"the same as in {names[first >> 40]} row {first & (2**40 - 1)}"}])
        row = typed.slice(index, 1).to_pylist()[0]
        raws[index] = json.dumps({k: v if isinstance(v, int | float | str | None) else str(v)[:4000]
                                  for k, v in row.items()})
    files = [names[file] for file in rows[FILE].to_pylist()]
    return pa.table({"file": pa.array(files, pa.string()), "row": rows[ROW],
                     "reasons": pa.array(reasons, pa.string()), "raw": pa.array(raws, pa.string())})


def _write(table: pa.Table, place: Store, name: str) -> None:
    """Durably; a task that runs again writes the same file anew."""
    if isinstance(place, Folder):
        _write_here(table, place.path / name)
        return
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=ROW_GROUP)
    place.write(name, sink.getvalue())


def _write_here(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(table, temporary, row_group_size=ROW_GROUP)
    _sync(temporary)
    temporary.rename(path)


def write_json(place: Store, name: str, value: Mapping[str, Any]) -> None:
    """Durable JSON."""
    place.write(name, json.dumps(value, indent=1).encode())


def _sync(path: Path) -> None:
    path.chmod(0o600)
    with path.open("rb") as file:
        os.fsync(file.fileno())
