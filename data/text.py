"""Free text to word numbers. Words are counted on the training rows only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .summary import ColumnSummary

WORD = re.compile(r"\w+|[^\w\s]")  # of the text in lower case: words, numbers, single marks
VOCABULARY = 20_000  # words of a column that have a number of their own, the most frequent
SELDOM = 2  # rows that a word must stand in
COVERED = 0.95  # this share of the training texts fits whole, as far as LONGEST allows
SHORTEST, LONGEST = 8, 256
PADDING, UNKNOWN, FIRST = 0, 1, 2


def words_of(text: str) -> Iterator[str]:
    """The words of a text, in its order."""
    return (found.group() for found in WORD.finditer(text.lower()))


def count_words(array: pa.Array) -> tuple[Counter[str], NDArray[np.float64]]:
    """In how many of the texts each word stands, and how many words each text has."""
    rows: Counter[str] = Counter()
    lengths = np.empty(len(array), np.float64)
    for index, text in enumerate(array.to_pylist()):
        words = WORD.findall(text.lower())
        lengths[index] = len(words)
        rows.update(set(words))
    return rows, lengths


@dataclass(frozen=True)
class Text:
    """A text's words as numbers: 0 padding, 1 a word not known, then `words` in their order.

    A text has `length` places. Words beyond are cut off, so the first ones count; a missing text is
    one without words.
    """

    column: str
    words: tuple[str, ...]
    length: int

    @staticmethod
    def fit(column: str, seen: ColumnSummary) -> Text:
        words = tuple(w for w, rows in seen.items.top(VOCABULARY) if rows >= SELDOM)
        wanted = 0.0
        if seen.numbers.count:
            wanted = float(seen.numbers.quantiles(np.array([COVERED]))[0])
        return Text(column, words, int(min(LONGEST, max(SHORTEST, -(-wanted // 8) * 8))))

    def apply(self, array: pa.Array, first: int, out: NDArray[np.int64]) -> None:
        """Into `out [B, length]`, which holds padding; the first of `words` has the number
        `first`."""
        known, start = self._number, first - FIRST
        for row, text in zip(out, array.to_pylist(), strict=True):
            if text is None:
                continue
            numbers = [known.get(word, UNKNOWN) for word in islice(words_of(text), self.length)]
            row[: len(numbers)] = numbers
            if start:
                row[row >= FIRST] += start

    @cached_property
    def _number(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words, FIRST)}


def starts(texts: tuple[Text, ...]) -> list[int]:
    """The number of each column's first word: columns share padding and the unknown word."""
    ends = np.cumsum([FIRST, *(len(text.words) for text in texts)])
    return [int(end) for end in ends[:-1]]


def describe(seen: ColumnSummary, top: int, *, sensitive: bool) -> dict[str, Any]:
    """The words of a column for its profile: how many a text has, and the most frequent with the
    number of rows that they stand in."""
    if not seen.numbers.count:
        return {}
    edges = seen.numbers.quantiles(np.linspace(0, 1, 21))
    said: dict[str, Any] = {"mean": seen.numbers.mean, "min": seen.numbers.min,
                            "max": seen.numbers.max, "edges": edges.tolist()}
    if not sensitive:
        said["top"] = [[word, rows] for word, rows in seen.items.top(top)]
    return {"words": said}
