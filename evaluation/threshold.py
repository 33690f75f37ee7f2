"""Where a binary probability becomes a yes, chosen on the validation rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .spec import CostSpec, ThresholdSpec

Array = NDArray[np.float64]
DEFAULT = 0.5


def choose(y: NDArray[np.generic], p: Array, threshold: ThresholdSpec) -> dict[str, Any]:
    """The cut that `threshold` asks for, as it is kept in a bundle's objective.json.

    Args:
        y: `[N]` 1 for the positive class, else 0.
        p: `[N]` probability of the positive class. A row is a yes where `p >= threshold`.

    Returns:
        `threshold`, `rule` (what was asked, in words), `costs` (the two costs, or None), `rows`
        it was chosen on, and `value` there: the cost per row, or the metric's value (None for a
        fixed or default cut, which no row decides).
    """
    if threshold.fixed is not None:
        return _chosen(threshold.fixed, "fixed", None, 0, None)
    if threshold.cost is None and threshold.best is None:
        return _chosen(DEFAULT, "default", None, 0, None)
    cuts, hits, alarms = _cuts(y.astype(bool), p.astype(np.float64))
    rows, positives = len(y), int(np.count_nonzero(y))
    if threshold.cost is not None:
        value = _cost(threshold.cost, hits, alarms, positives) / rows
        costs = threshold.cost
        rational = costs.false_positive / (costs.false_positive + costs.false_negative)
        best = _best(-value, cuts, near=rational)
        return _chosen(cuts[best], "least cost", costs.model_dump(), rows, value[best])
    value = _score(str(threshold.best), hits, alarms, positives, rows)
    best = _best(value, cuts, near=DEFAULT)
    return _chosen(cuts[best], f"best {threshold.best}", None, rows, value[best])


def _chosen(
    cut: float, rule: str, costs: dict[str, float] | None, rows: int, value: float | None
) -> dict[str, Any]:
    return {
        "threshold": float(cut),
        "rule": rule,
        "costs": costs,
        "rows": rows,
        "value": None if value is None else float(value),
    }


def _cuts(y: NDArray[np.bool_], p: Array) -> tuple[Array, Array, Array]:
    """Every cut that changes an answer, half way between two scores, with the hits and the alarms
    (all yes-answers) above it; from no alarm at all to every row."""
    order = np.argsort(-p, kind="stable")
    ranked = p[order]
    last = np.flatnonzero(np.append(np.diff(ranked) != 0, True))
    following = np.append(ranked[last[:-1] + 1], 0.0)
    middle = (ranked[last] + following) / 2
    hits = np.cumsum(y[order])[last].astype(np.float64)
    never = np.nextafter(ranked[0], np.inf)
    return (
        np.concatenate([[never], middle]),
        np.concatenate([[0.0], hits]),
        np.concatenate([[0.0], last + 1.0]),
    )


def _cost(costs: CostSpec, hits: Array, alarms: Array, positives: int) -> Array:
    return costs.false_positive * (alarms - hits) + costs.false_negative * (positives - hits)


def _score(name: str, hits: Array, alarms: Array, positives: int, rows: int) -> Array:
    quiet = rows - positives - (alarms - hits)  # right to say no
    if name == "accuracy":
        return (hits + quiet) / rows
    if name == "f1":
        return 2 * hits / np.maximum(alarms + positives, 1)
    return (hits / max(positives, 1) + quiet / max(rows - positives, 1)) / 2


def _best(value: Array, cuts: Array, near: float) -> int:
    """The highest value; among equals the cut nearest `near`, so that noise doesn't decide."""
    level = np.flatnonzero(value >= value.max() - 1e-12)
    return int(level[np.argmin(np.abs(cuts[level] - near))])
