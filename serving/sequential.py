"""Comparisons that may be looked at as often as one likes, and stopped when they have decided.

A confidence sequence holds at all times at once with probability 1 - alpha. These are the
asymptotic ones of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit
theory and asymptotic confidence sequences" (2021), eq. 1: as exact as a normal approximation of
the mean is, from `LEAST` observations on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEAST = 30
_TIGHTEST = 500  # observations at which the sequence is narrowest


@dataclass(frozen=True)
class Moments:
    """Of independent observations: how many, their mean and variance."""

    count: int
    mean: float
    variance: float

    @classmethod
    def of_sums(cls, count: int, total: float, squares: float) -> Moments:
        if count == 0:
            return cls(0, 0.0, 0.0)
        mean = total / count
        return cls(count, mean, max(0.0, squares / count - mean * mean))

    @classmethod
    def of_share(cls, count: int, hits: int) -> Moments:
        """A share of yes and no. Its variance is never 0: one of each is added for it."""
        likely = (hits + 1) / (count + 2)
        return cls(count, hits / count if count else 0.0, likely * (1 - likely))


def radius(moments: Moments, alpha: float) -> float:
    """Half the width of the sequence at this time; infinite under `LEAST` observations."""
    if moments.count < LEAST:
        return math.inf
    log = -2 * math.log(alpha)
    rho2 = (log + math.log(log + 1)) / _TIGHTEST
    spread = moments.count * rho2 + 1
    inner = 2 * spread / (moments.count**2 * rho2) * math.log(math.sqrt(spread) / alpha)
    return math.sqrt(moments.variance * inner)


def exceeds(new: Moments, old: Moments, by: float, alpha: float) -> bool:
    """Whether it is shown that the mean of `new` lies more than `by` above that of `old`."""
    return new.mean - old.mean - by > radius(new, alpha / 2) + radius(old, alpha / 2)


def upper_edge(counts: Sequence[int], edges: Sequence[float], q: float) -> float:
    """The least edge with a share `q` of the counts at or below it; counts has one more, beyond
    the last edge, for which the answer is infinite."""
    total, below = sum(counts), 0
    for count, edge in zip(counts, edges, strict=False):
        below += count
        if below >= q * total:
            return edge
    return math.inf
