"""A mergeable quantile sketch that gives the same answer for the same data on every run.

DataSketches' KLL throws random coins, so two fits of the same rows differ. Here every second
value of a full level goes on to the next, the odd and the even ones by turns (Manku, Rajagopalan
and Lindsay 1998), which bounds the error of a rank by log2(n / k) / (2 k): 0.3 % at 10 M rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
K = 4096  # values of a level; below this many values the answers are exact


class Quantiles:
    """Level `i` holds fewer than `2 k` values that each stand for `2^i`."""

    def __init__(self) -> None:
        self.levels: list[Floats] = [np.zeros(0)]
        self.turns = [0]

    @property
    def empty(self) -> bool:
        return not any(len(level) for level in self.levels)

    def add(self, values: Floats) -> None:
        """Take the values, which hold no NaN, in; their order does not matter within a call."""
        self._take(0, np.asarray(values, np.float64))

    def merge(self, other: Quantiles) -> None:
        for level, values in enumerate(other.levels):
            self._take(level, values)

    def _take(self, level: int, values: Floats) -> None:
        while len(values):
            while level >= len(self.levels):
                self.levels.append(np.zeros(0))
                self.turns.append(0)
            values = np.concatenate([self.levels[level], values])
            if len(values) < 2 * K:
                self.levels[level] = values
                return
            values.sort()
            even = len(values) - len(values) % 2
            self.levels[level] = values[even:].copy()
            values = values[self.turns[level] : even : 2]
            self.turns[level] ^= 1
            level += 1

    def _sorted(self) -> tuple[Floats, Floats]:
        """The values kept, in order, and the share of all that lies at or below each."""
        values = np.concatenate(self.levels)
        weights = np.repeat(2.0 ** np.arange(len(self.levels)), [len(lv) for lv in self.levels])
        order = np.argsort(values, kind="stable")
        upto = np.cumsum(weights[order])
        return values[order], upto / upto[-1]

    def quantiles(self, ranks: Floats) -> Floats:
        """The smallest kept value with at least each share of the values at or below it."""
        values, upto = self._sorted()
        index = np.searchsorted(upto, np.asarray(ranks) - 1e-12)
        return np.asarray(values[np.minimum(index, len(values) - 1)], np.float64)

    def ranks(self, x: Floats) -> tuple[Floats, Floats]:
        """The shares of the values below each of `x`, and at or below."""
        values, upto = self._sorted()
        upto = np.concatenate([[0.0], upto])
        return (upto[np.searchsorted(values, x, "left")], upto[np.searchsorted(values, x, "right")])
