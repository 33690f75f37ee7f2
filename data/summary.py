"""Mergeable summaries of columns: what fits a transform and describes the data in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import datasketches as ds
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .images import Shape, shape_of
from .quantiles import Quantiles
from .text import count_words

KMV_K = 4096  # distinct counts are exact below, within 1.6 % above
LG_ITEMS = 16  # exact counts of up to 49,152 distinct values
TOP_OF_BLOCK = 20_000


def hashes(array: pa.Array) -> NDArray[np.uint64]:
    """A stable 64-bit hash of each value."""
    values = array.to_pandas() if not pa.types.is_timestamp(array.type) else pd.Series(
        array.cast(pa.int64()).to_numpy(zero_copy_only=False))
    return np.asarray(pd.util.hash_array(values.to_numpy(), categorize=True), np.uint64)


class Distinct:
    """How many values are different: the k smallest hashes."""

    def __init__(self) -> None:
        self.smallest = np.zeros(0, np.uint64)

    def add(self, values: pa.Array) -> None:
        self._keep(hashes(values))

    def merge(self, other: Distinct) -> None:
        self._keep(other.smallest)

    def _keep(self, more: NDArray[np.uint64]) -> None:
        if len(self.smallest) == KMV_K:
            more = more[more < self.smallest[-1]]
        both = np.sort(np.concatenate([self.smallest, more]))  # np.unique is ten times slower here
        self.smallest = both[np.diff(both, prepend=both[:1] - 1) != 0][:KMV_K].copy()

    @property
    def count(self) -> int:
        if len(self.smallest) < KMV_K:
            return len(self.smallest)
        return round((KMV_K - 1) / (float(self.smallest[-1]) / 2.0**64))


class Numbers:
    """Moments, bounds and quantiles of float64 values."""

    def __init__(self) -> None:
        self.count, self.mean, self.m2 = 0, 0.0, 0.0
        self.min, self.max = np.inf, -np.inf
        self.sketch = Quantiles()

    def add(self, values: NDArray[np.float64]) -> None:
        if not len(values):
            return
        mean = float(values.mean())
        self._join(len(values), mean, float(np.square(values - mean).sum()))
        self.min, self.max = min(self.min, float(values.min())), max(self.max, float(values.max()))
        self.sketch.add(values)

    def merge(self, other: Numbers) -> None:
        if not other.count:
            return
        self._join(other.count, other.mean, other.m2)
        self.min, self.max = min(self.min, other.min), max(self.max, other.max)
        self.sketch.merge(other.sketch)

    def _join(self, count: int, mean: float, m2: float) -> None:
        total, apart = self.count + count, mean - self.mean
        self.m2 += m2 + apart * apart * self.count * count / total
        self.mean += apart * count / total
        self.count = total

    @property
    def std(self) -> float:
        return float(np.sqrt(self.m2 / self.count)) if self.count else 0.0

    def quantiles(self, ranks: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.sketch.quantiles(ranks)


class Items:
    """The most frequent texts and how often each stands."""

    def __init__(self) -> None:
        self.sketch = ds.frequent_strings_sketch(LG_ITEMS)

    def add(self, values: pa.Array) -> None:
        counted = values.cast(pa.string()).value_counts()
        names, counts = counted.field(0), counted.field(1)
        if len(names) > TOP_OF_BLOCK:
            largest = pc.select_k_unstable(counts, TOP_OF_BLOCK, [("", "descending")])
            names, counts = names.take(largest), counts.take(largest)
        for name, count in zip(names.to_pylist(), counts.to_pylist(), strict=True):
            self.sketch.update(name, count)

    def add_counts(self, counts: Mapping[str, int]) -> None:
        """Texts that were counted already; the order in which they are given does not matter."""
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        for name, count in ordered[:TOP_OF_BLOCK]:
            self.sketch.update(name, count)

    def merge(self, other: Items) -> None:
        self.sketch.merge(other.sketch)

    def top(self, most: int) -> list[tuple[str, int]]:
        """(value, count), the most frequent first, ties by name."""
        items = self.sketch.get_frequent_items(ds.frequent_items_error_type.NO_FALSE_NEGATIVES)
        return sorted(((item[0], item[1]) for item in items), key=lambda i: (-i[1], i[0]))[:most]

    def __getstate__(self) -> dict[str, Any]:
        return {"sketch": self.sketch.serialize()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.sketch = ds.frequent_strings_sketch.deserialize(state["sketch"])


class ColumnSummary:
    """One column: `what` is numbers (timestamps in microseconds), items, text (its words as items,
    how many a text has as numbers), image or nothing."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.rows, self.nulls = 0, 0
        self.numbers, self.items, self.distinct = Numbers(), Items(), Distinct()
        self.first: tuple[int, Shape] | None = None  # (place in the data, shape) of the first image

    def add(self, array: pa.Array, place: int) -> None:
        self.rows += len(array)
        self.nulls += array.null_count
        valid = array.drop_null()
        if not len(valid):
            return
        if self.what == "numbers":
            self.numbers.add(as_floats(valid))
            self.distinct.add(valid)
        elif self.what == "items":
            self.items.add(valid)
            self.distinct.add(valid)
        elif self.what == "text":
            words, lengths = count_words(valid)
            self.items.add_counts(words)
            self.numbers.add(lengths)
        elif self.what == "image":
            self.first = (place, shape_of(valid[0].as_py()))

    def merge(self, other: ColumnSummary) -> None:
        self.rows += other.rows
        self.nulls += other.nulls
        self.numbers.merge(other.numbers)
        self.items.merge(other.items)
        self.distinct.merge(other.distinct)
        firsts = [first for first in (self.first, other.first) if first is not None]
        self.first = min(firsts) if firsts else None


def as_floats(array: pa.Array) -> NDArray[np.float64]:
    """Numbers, truths or times (microseconds since 1970) as float64; null is NaN."""
    if pa.types.is_timestamp(array.type) or pa.types.is_boolean(array.type):
        array = array.cast(pa.int64())
    if not pa.types.is_float64(array.type):
        array = pc.cast(array, pa.float64(), safe=False)
    return np.asarray(array.to_numpy(zero_copy_only=False), np.float64)
