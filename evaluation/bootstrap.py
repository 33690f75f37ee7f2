"""Percentile bootstrap over test rows, the same resamples for every contender (so: in pairs)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .measures import Array, Cut, Measures
from .results import Estimate

Labels = NDArray[np.generic]

WORK = 500_000_000  # sorted row weightings; some fifteen seconds of one core
_CELLS = 1_500_000  # weights held at a time


@dataclass(frozen=True)
class Contender:
    """Somebody's scores of the test rows and the cut that goes with them."""

    scores: Array
    cut: Cut


@dataclass(frozen=True)
class Intervals:
    """Each contender's metrics, and the first one's less each other's.

    `rows` is how many test rows were resampled; fewer than all is told in `note`.
    """

    metrics: dict[str, dict[str, Estimate]]
    difference: dict[str, dict[str, Estimate]]
    rows: int
    note: str


def bootstrap(
    task: str,
    y: Labels,
    contenders: Mapping[str, Contender],
    *,
    resamples: int,
    confidence: float,
    seed: int = 0,
    work: int = WORK,
    step: Callable[[int, int], None] | None = None,
) -> Intervals:
    """Estimate every metric of every contender, the first of which is the model.

    Point estimates use all rows. Where rows x resamples x curves x contenders is above `work`,
    the resamples are drawn from a random part of the rows and their spread is scaled by the root
    of the share (m out of n bootstrap; Bickel, Goetze, van Zwet 1997).
    """
    rng = np.random.default_rng(seed)
    full = {name: Measures(task, y, c.scores, c.cut) for name, c in contenders.items()}
    points = {name: measures.point() for name, measures in full.items()}
    curves = sum(measures.curves for measures in full.values())
    rows = min(len(y), max(1000, work // (resamples * curves)))
    note = ""
    if rows < len(y):
        note = f"intervals come from {rows:,} of the {len(y):,} test rows, scaled to all of them"
        part = np.sort(rng.choice(len(y), rows, replace=False))
        full = {
            name: Measures(task, y[part], c.scores[part], c.cut) for name, c in contenders.items()
        }
    drawn: dict[str, dict[str, list[Array]]] = {name: {} for name in full}
    for done, weights in _resamples(rng, rows, resamples):
        for name, measures in full.items():
            for metric, values in measures.values(weights).items():
                drawn[name].setdefault(metric, []).append(values)
        if step is not None:
            step(done, resamples)
    samples = {n: {m: np.concatenate(v) for m, v in each.items()} for n, each in drawn.items()}
    return _summarise(samples, points, confidence, rows, len(y), note)


def _resamples(rng: np.random.Generator, rows: int, resamples: int) -> Iterator[tuple[int, Array]]:
    """(how many so far, their weights `[rows, B]`): how often each row was drawn."""
    at_once = max(1, min(resamples, _CELLS // rows))
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        drawn = rng.integers(rows, size=(size, rows))
        drawn += np.arange(size)[:, None] * rows
        counts = np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows)
        yield start + size, np.ascontiguousarray(counts.T, dtype=np.float64)


def _summarise(
    samples: dict[str, dict[str, Array]],
    points: dict[str, dict[str, float]],
    confidence: float,
    rows: int,
    total: int,
    note: str,
) -> Intervals:
    model, *rivals = samples

    def estimate(value: float, values: Array) -> Estimate:
        return _estimate(value, values, confidence, rows, total)

    metrics = {
        name: {m: estimate(points[name][m], values) for m, values in each.items()}
        for name, each in samples.items()
    }
    difference = {
        rival: {
            m: estimate(points[model][m] - points[rival][m], samples[model][m] - values)
            for m, values in samples[rival].items()
            if m in samples[model]
        }
        for rival in rivals
    }
    return Intervals(metrics, difference, rows, note)


def _estimate(value: float, values: Array, confidence: float, rows: int, total: int) -> Estimate:
    known = values[~np.isnan(values)]
    if not known.size:
        return Estimate(value, float("nan"), float("nan"))
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    if rows < total:
        centre, share = float(known.mean()), np.sqrt(rows / total)
        low, high = value + (low - centre) * share, value + (high - centre) * share
    return Estimate(value, float(low), float(high))
