"""Columns to one matrix for the baselines, independent of the model's own transform."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from .measures import Array
from .texts import Words

CATEGORIES = 254  # of one column that keep a code of their own; histogram boosting takes 255
SIDE = 14  # pixels a side that boosting sees of an image

Pixels = Callable[[pa.Table], NDArray[np.uint8]]  # [N, C, H, W]


@dataclass(frozen=True)
class Encoding:
    """Numbers (null is NaN), date parts and pixels, then one code per categorical column.

    Code 0 is missing, 1 is any category seldom or never seen in the fitted rows. Texts are hashed
    words after the codes, or, small, their main directions among the numbers.
    """

    numeric: tuple[str, ...]
    dates: tuple[str, ...]
    categories: Mapping[str, pa.Array]
    pixels: Pixels | None = None
    words: Words | None = None

    @classmethod
    def fit(cls, table: pa.Table, kinds: Mapping[str, str], pixels: Pixels | None) -> Encoding:
        """`kinds` maps each feature to numeric, categorical, datetime, text or image."""
        of = {kind: tuple(n for n, k in kinds.items() if k == kind) for kind in kinds.values()}
        return cls(
            of.get("numeric", ()),
            of.get("datetime", ()),
            {name: _frequent(table[name]) for name in of.get("categorical", ())},
            pixels if "image" in of else None,
            Words.fit(table, of["text"]) if "text" in of else None,
        )

    def matrix(self, table: pa.Table, small: bool = False) -> tuple[Any, NDArray[np.bool_]]:
        """(`[N, F]`, which of the F columns are category codes); `small` shrinks images and texts.
        Sparse where there are hashed words: the last `words.width` columns."""
        dense, codes = self._dense(table, small)
        mask = np.zeros(dense.shape[1], dtype=bool)
        mask[dense.shape[1] - codes :] = True
        if self.words is None or small:
            return dense, mask
        matrix = sparse.hstack([sparse.csr_array(dense), *self.words.sparse(table)], format="csr")
        return matrix, np.pad(mask, (0, self.words.width))

    def _dense(self, table: pa.Table, small: bool) -> tuple[Array, int]:
        """All but hashed words, and how many columns at the end are category codes."""
        parts = [_numbers(table[name]) for name in self.numeric]
        parts += [part for name in self.dates for part in _date_parts(table[name])]
        codes = [_codes(table[name], known) for name, known in self.categories.items()]
        columns = np.column_stack([*parts, *codes]) if parts or codes else None
        blocks = [] if columns is None else [columns]
        if self.words is not None and small:
            blocks[:0] = self.words.dense(table)
        if self.pixels is not None:
            blocks.insert(0, flatten(self.pixels(table), SIDE if small else None))
        if not blocks:
            return np.zeros((len(table), 0)), 0
        return np.concatenate(blocks, axis=1) if len(blocks) > 1 else blocks[0], len(codes)


def flatten(images: NDArray[np.uint8], side: int | None) -> Array:
    """`[N, C, H, W]` to `[N, F]` in 0..1, averaged down to at most `side` pixels a side."""
    if side is not None:
        rows, columns = (max(1, -(-size // side)) for size in images.shape[2:])
        height, width = images.shape[2] // rows * rows, images.shape[3] // columns * columns
        shape = (*images.shape[:2], height // rows, rows, width // columns, columns)
        images = images[:, :, :height, :width].reshape(shape).mean(axis=(3, 5), dtype=np.float32)
    return images.reshape(len(images), -1).astype(np.float64) / 255


def _numbers(column: pa.ChunkedArray) -> Array:
    values = column.cast(pa.float64()) if not pa.types.is_boolean(column.type) else column.cast(
        pa.int8()
    ).cast(pa.float64())
    return np.asarray(values.to_numpy(), dtype=np.float64)


def _date_parts(column: pa.ChunkedArray) -> list[Array]:
    moment = column.cast(pa.timestamp("us"))  # UTC, without its zone
    parts = (moment.cast(pa.int64()), pc.month(moment), pc.day_of_week(moment), pc.hour(moment))
    return [_numbers(part) for part in parts]


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string())


def _frequent(column: pa.ChunkedArray) -> pa.Array:
    counts = pc.value_counts(_text(column).drop_null())
    order = pc.array_sort_indices(counts.field("counts"), order="descending")
    return counts.field("values").take(order[: CATEGORIES - 1])


def _codes(column: pa.ChunkedArray, known: pa.Array) -> Array:
    text = _text(column)
    code = pc.add(pc.fill_null(pc.index_in(text, value_set=known), -1), 2)  # 1: not known
    return _numbers(pc.if_else(pc.is_null(text), 0, code))
