"""The arrays behind the report's charts, thinned to what an eye can tell, as JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .measures import Array, Cut

POINTS = 160  # of one curve
BINS = 40
LARGEST = 16  # classes drawn in a confusion matrix
Labels = NDArray[np.generic]


def curves(
    task: str, y: Labels, scores: Mapping[str, Array], cut: Cut, classes: list[str] | None
) -> dict[str, Any]:
    """All charts' arrays of one task; the first of `scores` is the model's.

    binary: `confusion` [actual][chosen], `roc`, `pr`, `calibration`, `scores`, `sweep`;
    multiclass: `confusion`, `per_class`, `mixed_up`, `calibration` of the chosen class;
    regression: `scatter` [predicted, actual], `residuals`, `bands` over the predicted value.
    """
    model = next(iter(scores.values()))
    if task == "regression":
        return _regression(y.astype(np.float64), model)
    label = y.astype(np.int64)
    if task == "binary":
        return _binary(label, scores, cut)
    return _multiclass(label, model, classes or [])


def _binary(label: NDArray[np.int64], scores: Mapping[str, Array], cut: Cut) -> dict[str, Any]:
    p = next(iter(scores.values()))
    edges = np.linspace(0, 1, BINS + 1)
    ranked = {name: _ranked(label, score) for name, score in scores.items()}
    return {
        "confusion": _confusion(label, (p >= cut.threshold).astype(np.int64), 2).tolist(),
        "roc": {name: _thin(fpr, tpr) for name, (fpr, tpr, _) in ranked.items()},
        "pr": {name: _thin(tpr, precision) for name, (_, tpr, precision) in ranked.items()},
        "calibration": calibration(label == 1, p),
        "scores": {
            "edges": edges.tolist(),
            "negative": np.histogram(p[label == 0], edges)[0].tolist(),
            "positive": np.histogram(p[label == 1], edges)[0].tolist(),
        },
        "sweep": _sweep(label, p, cut),
    }


def _ranked(label: NDArray[np.int64], score: Array) -> tuple[Array, Array, Array]:
    """(false positive rate, recall, precision) at each distinct score, from the highest down."""
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    hits = np.cumsum(label[order])[last].astype(np.float64)
    alarms = last + 1.0
    positives = max(int(label.sum()), 1)
    negatives = max(len(label) - int(label.sum()), 1)
    fpr = np.append(0.0, (alarms - hits) / negatives)
    precision = hits / alarms
    return fpr, np.append(0.0, hits / positives), np.append(precision[0], precision)


def _thin(x: Array, y: Array) -> list[list[float]]:
    """At most POINTS points, evenly spaced along the curve's own length."""
    length = np.append(0.0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
    at = np.searchsorted(length, np.linspace(0, length[-1], POINTS))
    keep = np.unique(np.clip(at, 0, len(x) - 1))
    return [[round(float(x[i]), 5), round(float(y[i]), 5)] for i in keep]


def calibration(hit: NDArray[np.bool_], p: Array, bins: int = 10) -> list[dict[str, float]]:
    """Equally filled bins of probability: the mean said, the share seen and its Wilson interval."""
    order = np.argsort(p, kind="stable")
    found = []
    for part in np.array_split(order, min(bins, len(order))):
        rows, seen = len(part), float(hit[part].mean())
        centre, half = wilson(seen, rows)
        found.append({
            "p": float(p[part].mean()), "seen": seen, "low": centre - half, "high": centre + half,
            "rows": rows,
        })
    return found


def wilson(share: float, rows: int, z: float = 1.96) -> tuple[float, float]:
    """(centre, half width) of the Wilson score interval."""
    scale = 1 + z * z / rows
    half = z * np.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows)) / scale
    return (share + z * z / (2 * rows)) / scale, float(half)


def _sweep(label: NDArray[np.int64], p: Array, cut: Cut) -> dict[str, Any]:
    """What each threshold would have given on these rows: the cost per row, or F1."""
    at = np.linspace(0.005, 0.995, 100)
    ranked, positive = np.sort(p), np.sort(p[label == 1])
    alarms = len(p) - np.searchsorted(ranked, at)
    hits = len(positive) - np.searchsorted(positive, at)
    if cut.false_positive is not None and cut.false_negative is not None:
        missed = len(positive) - hits
        value = (cut.false_positive * (alarms - hits) + cut.false_negative * missed) / len(p)
        return {"name": "cost per row", "threshold": at.tolist(), "value": value.tolist()}
    f1 = 2 * hits / np.maximum(alarms + len(positive), 1)
    return {"name": "F1", "threshold": at.tolist(), "value": f1.tolist()}


def _confusion(label: NDArray[np.int64], chosen: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    return np.bincount(label * k + chosen, minlength=k * k).reshape(k, k)


def _multiclass(label: NDArray[np.int64], p: Array, classes: list[str]) -> dict[str, Any]:
    k = len(classes)
    chosen = p.argmax(axis=1).astype(np.int64)
    matrix = _confusion(label, chosen, k)
    actual, alarms, right = matrix.sum(axis=1), matrix.sum(axis=0), np.diag(matrix)
    shown = np.sort(np.argsort(-actual, kind="stable")[:LARGEST])
    wrong = matrix - np.diag(right)
    worst = [i for i in np.argsort(-wrong, axis=None, kind="stable")[:8] if wrong.flat[i]]
    return {
        "confusion": matrix[np.ix_(shown, shown)].tolist(),
        "shown": [classes[i] for i in shown],
        "per_class": [
            {
                "class": name,
                "rows": int(actual[i]),
                "precision": float(right[i] / max(alarms[i], 1)),
                "recall": float(right[i] / max(actual[i], 1)),
                "f1": float(2 * right[i] / max(actual[i] + alarms[i], 1)),
            }
            for i, name in enumerate(classes)
        ],
        "mixed_up": [
            {"actual": classes[i // k], "chosen": classes[i % k], "rows": int(wrong.flat[i])}
            for i in worst
        ],
        "calibration": calibration(label == chosen, p.max(axis=1)),
    }


def _regression(y: Array, predicted: Array) -> dict[str, Any]:
    part = np.random.default_rng(0).permutation(len(y))[:900]
    residual = y - predicted
    low, high = np.quantile(residual, [0.005, 0.995])
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    bands = []
    for rows in np.array_split(np.argsort(predicted, kind="stable"), min(12, len(y))):
        tenth, middle, ninetieth = np.quantile(residual[rows], [0.1, 0.5, 0.9])
        bands.append({
            "predicted": float(predicted[rows].mean()), "p10": float(tenth),
            "median": float(middle), "p90": float(ninetieth), "rows": len(rows),
        })
    return {
        "scatter": np.column_stack([predicted[part], y[part]]).round(6).tolist(),
        "residuals": {
            "edges": edges.tolist(),
            "rows": np.histogram(np.clip(residual, low, high), edges)[0].tolist(),
        },
        "bands": bands,
    }
