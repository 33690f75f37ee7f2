"""How values and metrics are written in sentences and tables."""

from __future__ import annotations

import math

from .results import COST, Estimate

LABELS = {
    "roc_auc": "ROC AUC", "average_precision": "average precision", "f1": "F1", "rmse": "RMSE",
    "mae": "MAE", "r2": "R²", "log_loss": "log loss", "brier": "Brier score", COST: "cost per row",
    "balanced_accuracy": "balanced accuracy", "p50_latency_ms": "latency of one row, median",
    "p99_latency_ms": "latency of one row, 99th percentile", "model_mb": "size on disk",
}


def label(metric: str) -> str:
    return LABELS.get(metric, metric.replace("_", " "))


def exact(value: float, sign: bool = False) -> str:
    """Four decimals below 10, fewer above."""
    if math.isnan(value):
        return "–"
    size = abs(value)
    text = f"{size:.4f}" if size < 10 else f"{size:,.2f}" if size < 1000 else f"{size:,.0f}"
    return ("−" if value < 0 else "+" if sign and value > 0 else "") + text


def interval(estimate: Estimate, sign: bool = False) -> str:
    return f"[{exact(estimate.low, sign)}, {exact(estimate.high, sign)}]"
