"""Rows of a prepared split, a part at a time: no split is ever held whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .measures import Array

if TYPE_CHECKING:
    from raymill.data.prepare import Prepared

CHUNK = 32_768  # rows read and scored at a time
Labels = NDArray[np.generic]
Scorer = Callable[[pa.Table], Array]


def chunks(prepared: Prepared, split: str) -> Iterator[pa.Table]:
    """The typed rows of a split in their order, at most CHUNK at a time."""
    for part in prepared.parts(split):
        with part.open() as file:
            for batch in file.iter_batches(CHUNK):
                yield pa.Table.from_batches([batch])


def sample(prepared: Prepared, split: str, most: int) -> pa.Table:
    """All rows of a split, or a fixed random draw of `most` of them in their order."""
    total = prepared.rows[split]
    if total <= most:
        return pa.concat_tables(chunks(prepared, split))
    drawn = np.sort(np.random.default_rng(0).choice(total, most, replace=False))
    taken, start = [], 0
    for chunk in chunks(prepared, split):
        low, high = np.searchsorted(drawn, [start, start + len(chunk)])
        taken.append(chunk.take(pa.array(drawn[low:high] - start)))
        start += len(chunk)
    return pa.concat_tables(taken)


def targets(prepared: Prepared, table: pa.Table) -> Labels:
    """`[N]` class indices, or the target's own values (not standardised)."""
    if prepared.transform.schema.task == "regression":
        column = table[prepared.contract.target].cast(pa.float64())
        return np.asarray(column.to_numpy(), dtype=np.float64)
    return np.asarray(prepared.transform.targets(table), dtype=np.int64)


def score(
    prepared: Prepared, split: str, scorers: Mapping[str, Scorer]
) -> tuple[Labels, dict[str, Array]]:
    """The targets of a split and each scorer's float64 scores of it, in one pass over its rows."""
    truth: list[Labels] = []
    said: dict[str, list[Array]] = {name: [] for name in scorers}
    for chunk in chunks(prepared, split):
        truth.append(targets(prepared, chunk))
        for name, scorer in scorers.items():
            said[name].append(np.asarray(scorer(chunk), dtype=np.float64))
    return np.concatenate(truth), {name: np.concatenate(parts) for name, parts in said.items()}
