"""Metrics of predictions, exact and vectorised over rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raymill.data.schema import InputSchema

from .objective import METRICS

Array = NDArray[Any]


def compute(name: str, y: Array, scores: Array, schema: InputSchema) -> float:
    """One metric.

    Args:
        name: one of `METRICS`.
        y: `[B]` class index, or the value in the target's unit.
        scores: `[B]` probability of the positive class, `[B, K]` probabilities of the classes, or
            `[B]` values in the target's unit.
        schema: says the task and the classes.

    Returns:
        The value; NaN where it is not defined (a ranking metric with one class only).
    """
    if schema.task == "regression":
        return _REGRESSION[name](y.astype(np.float64), scores.astype(np.float64))
    p = scores.astype(np.float64)
    probabilities = np.stack([1 - p, p], axis=1) if p.ndim == 1 else p
    return _CLASSES[name](y.astype(np.int64), probabilities)


def compute_all(y: Array, scores: Array, schema: InputSchema) -> dict[str, float]:
    """Every metric of the schema's task."""
    return {
        name: compute(name, y, scores, schema)
        for name, metric in METRICS.items()
        if schema.task in metric.tasks
    }


def _ranks(scores: Array) -> Array:
    """Ranks from 1, ties sharing their mean (as in the Mann-Whitney statistic)."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Array = (last - (counts - 1) / 2)[inverse]
    return ranks


def _binary_auc(hit: Array, score: Array) -> float:
    positives = int(hit.sum())
    negatives = len(hit) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    total = _ranks(score)[hit].sum()
    return float((total - positives * (positives + 1) / 2) / (positives * negatives))


def _binary_average_precision(hit: Array, score: Array) -> float:
    positives = int(hit.sum())
    if positives == 0:
        return float("nan")
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)
    hits = np.cumsum(hit[order])[last]
    precision = hits / (np.flatnonzero(last) + 1)
    return float((np.diff(hits, prepend=0) * precision).sum() / positives)


def _each_class(rank: Callable[[Array, Array], float]) -> Callable[[Array, Array], float]:
    """The binary metric of the positive class, or the mean over one-vs-rest."""

    def value(y: Array, p: Array) -> float:
        if p.shape[1] == 2:
            return rank(y == 1, p[:, 1])
        values = [rank(y == k, p[:, k]) for k in range(p.shape[1])]
        return float(np.nanmean(values)) if not np.all(np.isnan(values)) else float("nan")

    return value


def _confusion(y: Array, p: Array) -> Array:
    """`[K, K]` counts: rows are the truth, columns the answer (binary: yes at p >= 0.5)."""
    k = p.shape[1]
    answer = (p[:, 1] >= 0.5).astype(np.int64) if k == 2 else p.argmax(axis=1)
    return np.bincount(y * k + answer, minlength=k * k).reshape(k, k)


def _accuracy(y: Array, p: Array) -> float:
    table = _confusion(y, p)
    return float(np.trace(table) / max(1, table.sum()))


def _ratio(hits: Array, of: Array) -> Array:
    return np.divide(hits, of, out=np.zeros(len(hits)), where=of > 0)


def _per_class(y: Array, p: Array) -> tuple[Array, Array, Array, Array]:
    """Precision, recall and F1 of each class, and which classes occur in `y`."""
    table = _confusion(y, p)
    hits, answers, truths = np.diag(table), table.sum(axis=0), table.sum(axis=1)
    f1 = _ratio(2 * hits, answers + truths)
    return _ratio(hits, answers), _ratio(hits, truths), f1, truths > 0


def _pick(index: int) -> Callable[[Array, Array], float]:
    def value(y: Array, p: Array) -> float:
        values = _per_class(y, p)
        if p.shape[1] == 2:
            return float(values[index][1])
        table = _confusion(y, p)
        occurs = table.sum(axis=0) + table.sum(axis=1) > 0
        return float(values[index][occurs].mean())

    return value


def _balanced_accuracy(y: Array, p: Array) -> float:
    _, recall, _, occurs = _per_class(y, p)
    return float(recall[occurs].mean()) if occurs.any() else float("nan")


def _log_loss(y: Array, p: Array) -> float:
    tiny = np.finfo(np.float64).eps
    chosen = np.clip(p[np.arange(len(y)), y], tiny, 1 - tiny)
    return float(-np.log(chosen).mean())


def _brier(y: Array, p: Array) -> float:
    if p.shape[1] == 2:
        return float(((p[:, 1] - y) ** 2).mean())
    truth = np.eye(p.shape[1])[y]
    return float(((p - truth) ** 2).sum(axis=1).mean())


def _r2(y: Array, value: Array) -> float:
    spread = ((y - y.mean()) ** 2).sum()
    return float(1 - ((y - value) ** 2).sum() / spread) if spread > 0 else float("nan")


_CLASSES: dict[str, Callable[[Array, Array], float]] = {
    "roc_auc": _each_class(_binary_auc),
    "average_precision": _each_class(_binary_average_precision),
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "precision": _pick(0),
    "recall": _pick(1),
    "f1": _pick(2),
    "log_loss": _log_loss,
    "brier": _brier,
}
_REGRESSION: dict[str, Callable[[Array, Array], float]] = {
    "rmse": lambda y, value: float(np.sqrt(((y - value) ** 2).mean())),
    "mae": lambda y, value: float(np.abs(y - value).mean()),
    "r2": _r2,
}
