"""Every metric of a task for many row weightings at once: one column of weights, one value.

With unit weights a column is the metric itself; with the counts of a bootstrap resample it is the
metric of that resample. Ranks and row losses are computed once and shared by all columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from .results import COST

Array = NDArray[np.float64]
Index = NDArray[np.int64]
_TINY = float(np.finfo(np.float64).eps)  # holds log loss finite, as training/metrics.py does


@dataclass(frozen=True)
class Cut:
    """Where a binary probability becomes a yes, and what the two errors cost (None: not asked)."""

    threshold: float = 0.5
    false_positive: float | None = None
    false_negative: float | None = None


class Ranking:
    """ROC AUC and average precision of one score against one yes/no outcome; ties count half."""

    def __init__(self, positive: NDArray[np.bool_], score: Array) -> None:
        order = np.argsort(score, kind="stable")
        fresh = np.concatenate([[True], np.diff(score[order]) != 0])
        self._starts = np.flatnonzero(fresh)
        self._positive, self._order = positive[order, None], order

    def values(self, weights: Array) -> tuple[Array, Array]:
        """(AUC, average precision), each `[B]`, for weights `[N, B]`; NaN where a class is absent.
        """
        ranked = weights[self._order]
        hits = self._tied(ranked * self._positive)
        rest = self._tied(ranked) - hits
        below = np.cumsum(rest, axis=0)
        found, negatives = hits.sum(axis=0), below[-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            auc = np.einsum("nb,nb->b", hits, below - rest / 2) / (found * negatives)
            recalled = found - np.cumsum(hits, axis=0) + hits
            alarms = recalled + negatives - below + rest
            precision = np.divide(recalled, alarms, out=np.zeros_like(alarms), where=alarms > 0)
            average = np.einsum("nb,nb->b", hits, precision) / found
        return auc, average

    def _tied(self, ranked: Array) -> Array:
        if len(self._starts) == len(ranked):
            return ranked
        return np.add.reduceat(ranked, self._starts, axis=0)


class Measures:
    """The metrics of one contender's scores.

    Args:
        task: binary, multiclass or regression.
        y: `[N]` class indices, or values in the target's unit.
        scores: `[N]` probabilities of class 1, `[N, K]` probabilities, or `[N]` values.
        cut: the threshold and costs of a binary task.
    """

    def __init__(self, task: str, y: NDArray[np.generic], scores: Array, cut: Cut) -> None:
        self._task = task
        self._rankings: list[Ranking] = []
        if task == "regression":
            self._losses = _regression_losses(y.astype(np.float64), scores)
            return
        label = y.astype(np.int64)
        probabilities = scores if scores.ndim == 2 else np.column_stack([1 - scores, scores])
        classes = probabilities.shape[1]
        binary = task == "binary"
        chosen = _chosen(scores, cut.threshold)
        self._losses = _class_losses(label, probabilities, chosen, binary, cut)
        kinds = [label, classes + chosen, 2 * classes + np.where(label == chosen, label, classes)]
        rows = np.tile(np.arange(len(label)), 3)
        self._counts = csr_matrix(
            (np.ones(len(rows)), (np.concatenate(kinds), rows)), shape=(3 * classes + 1, len(label))
        )
        columns = [1] if binary else range(classes)
        self._rankings = [Ranking(label == k, probabilities[:, k]) for k in columns]

    @property
    def curves(self) -> int:
        """How many sorted curves one weighting costs."""
        return max(1, len(self._rankings))

    def values(self, weights: Array) -> dict[str, Array]:
        """Metric name to its `[B]` values for weights `[N, B]`."""
        total = weights.sum(axis=0)
        means = {name: loss @ weights / total for name, loss in self._losses.items()}
        if self._task == "regression":
            return _regression_values(means)
        counts = (self._counts @ weights)[:-1].reshape(3, -1, weights.shape[1])
        actual, alarms, right = counts
        ranked = np.array([ranking.values(weights) for ranking in self._rankings])
        return {
            "roc_auc": _mean_known(ranked[:, 0]),
            "average_precision": _mean_known(ranked[:, 1]),
            **_count_values(actual, alarms, right, self._task == "binary"),
            **means,
        }

    def point(self) -> dict[str, float]:
        """The metrics of the rows as they are."""
        rows = len(next(iter(self._losses.values())))
        return {name: float(v[0]) for name, v in self.values(np.ones((rows, 1))).items()}


def _chosen(scores: Array, threshold: float) -> Index:
    decided = (scores >= threshold) if scores.ndim == 1 else scores.argmax(axis=1)
    return decided.astype(np.int64)


def _class_losses(
    label: Index, probabilities: Array, chosen: Index, binary: bool, cut: Cut
) -> dict[str, Array]:
    truth = probabilities[np.arange(len(label)), label]
    brier = (1 - truth) ** 2
    if not binary:
        brier = brier + (probabilities**2).sum(axis=1) - truth**2
    losses = {"log_loss": -np.log(np.clip(truth, _TINY, 1 - _TINY)), "brier": brier}
    if binary and cut.false_positive is not None and cut.false_negative is not None:
        losses[COST] = np.where(
            chosen == label, 0.0, np.where(chosen == 1, cut.false_positive, cut.false_negative)
        )
    return losses


def _count_values(actual: Array, alarms: Array, right: Array, binary: bool) -> dict[str, Array]:
    """From `[K, B]` weights of the actual classes, the chosen ones, and those chosen rightly."""
    seen = (actual + alarms) > 0
    recall = np.divide(right, actual, out=np.zeros_like(right), where=actual > 0)
    precision = np.divide(right, alarms, out=np.zeros_like(right), where=alarms > 0)
    f1 = np.divide(2 * right, actual + alarms, out=np.zeros_like(right), where=seen)
    values = {
        "accuracy": right.sum(axis=0) / actual.sum(axis=0),
        "balanced_accuracy": _mean_known(np.where(actual > 0, recall, np.nan)),
    }
    for name, each in (("f1", f1), ("precision", precision), ("recall", recall)):
        values[name] = each[1] if binary else _mean_known(np.where(seen, each, np.nan))
    return values


def _regression_losses(y: Array, scores: Array) -> dict[str, Array]:
    centred, error = y - y.mean(), scores - y
    return {"y": centred, "yy": centred**2, "se": error**2, "ae": np.abs(error)}


def _regression_values(means: dict[str, Array]) -> dict[str, Array]:
    spread = means["yy"] - means["y"] ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        r2 = np.where(spread > 0, 1 - means["se"] / spread, np.nan)
    return {"rmse": np.sqrt(means["se"]), "mae": means["ae"], "r2": r2}


def _mean_known(values: Array) -> Array:
    """Mean over axis 0 without the NaN; NaN where all are."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    mean = np.full(values.shape[1], np.nan)
    np.divide(np.where(known, values, 0.0).sum(axis=0), count, out=mean, where=count > 0)
    return mean
