"""Keys and unique columns: values that stand twice anywhere in the data, found in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from .conform import FILE, ROW
from .contract import Contract
from .ingest import REASONS
from .remote import get
from .summary import hashes

ROWS_A_TASK = 2_000_000
Places = NDArray[np.int64]  # [n, 2]: file * 2^40 + row, of the row and of the first one like it


def rules(contract: Contract) -> list[list[str]]:
    """The sets of columns in which no values may stand twice."""
    named = [[name] for name, rule in contract.columns.items() if rule.unique]
    return ([contract.key] if contract.key else []) + [n for n in named if n != contract.key]


def places(table: pa.Table) -> Places:
    """File and row as one number, in the data's order."""
    files = table[FILE].to_numpy().astype(np.int64)
    return np.asarray((files << 40) + table[ROW].to_numpy(), np.int64)


def duplicates(refs: Sequence[Any], columns: Sequence[str], rows: int) -> Places:
    """Every row but the first of those with equal values in `columns`, ordered. Null is a value
    for keys of several columns; a null in a single column is never a duplicate."""
    parts = max(1, -(-rows // ROWS_A_TASK))
    cut = ray.remote(num_cpus=0.5, num_returns=parts)(_cut)
    pieces = [cut.remote(ref, list(columns), parts) for ref in refs]
    by_part = [[piece] for piece in pieces] if parts == 1 else pieces
    find = ray.remote(num_cpus=0.5)(_find)
    found = [get(find.remote(*[piece[part] for piece in by_part])) for part in range(parts)]
    joined = np.concatenate(found) if found else np.zeros((0, 2), np.int64)
    return joined[np.argsort(joined[:, 0], kind="stable")]


def _cut(table: pa.Table, columns: list[str], parts: int) -> Any:
    """Hash and place of each good row, in `parts` ranges of hashes."""
    good = table.filter(table[REASONS].is_null())
    if len(columns) == 1:
        good = good.filter(good[columns[0]].is_valid())
    combined = np.zeros(len(good), np.uint64)
    with np.errstate(over="ignore"):
        for name in columns:
            combined = combined * np.uint64(0x9E3779B97F4A7C15) + hashes(good[name].combine_chunks())
            combined ^= combined >> np.uint64(29)
    where = places(good)
    if parts == 1:
        return combined, where
    owner = (combined % np.uint64(parts)).astype(np.int64)
    return [(combined[owner == p], where[owner == p]) for p in range(parts)]


def _find(*pieces: tuple[NDArray[np.uint64], Places]) -> Places:
    values = np.concatenate([values for values, _ in pieces])
    where = np.concatenate([where for _, where in pieces])
    order = np.lexsort((where, values))
    values, where = values[order], where[order]
    again = np.concatenate([[False], values[1:] == values[:-1]])
    firsts = where[np.maximum.accumulate(np.where(again, 0, np.arange(len(where))))]
    return np.stack([where[again], firsts[again]], axis=1)
