"""Metrics equal scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as reference

from raymill.data.schema import InputSchema
from raymill.training.metrics import compute, compute_all
from raymill.training.objective import METRICS

BINARY = InputSchema(("a",), (), None, "binary", ("no", "yes"))
MULTI = InputSchema(("a",), (), None, "multiclass", ("x", "y", "z"))
VALUES = InputSchema(("a",), (), None, "regression", None)


def test_binary_metrics_are_exact_with_ties() -> None:
    draw = np.random.default_rng(0)
    y, p = draw.integers(0, 2, 500), draw.random(500).round(2)
    yes = (p >= 0.5).astype(int)
    got = compute_all(y, p, BINARY)
    expected = {
        "roc_auc": reference.roc_auc_score(y, p),
        "average_precision": reference.average_precision_score(y, p),
        "accuracy": reference.accuracy_score(y, yes),
        "balanced_accuracy": reference.balanced_accuracy_score(y, yes),
        "f1": reference.f1_score(y, yes),
        "precision": reference.precision_score(y, yes),
        "recall": reference.recall_score(y, yes),
        "log_loss": reference.log_loss(y, np.clip(p, 1e-16, 1 - 1e-16)),
        "brier": reference.brier_score_loss(y, p),
    }
    assert got == pytest.approx(expected, abs=1e-9)


def test_multiclass_metrics_are_macro_means() -> None:
    draw = np.random.default_rng(1)
    y, p = draw.integers(0, 3, 400), draw.dirichlet(np.ones(3), 400)
    answer = p.argmax(axis=1)
    got = compute_all(y, p, MULTI)
    assert got["roc_auc"] == pytest.approx(reference.roc_auc_score(y, p, multi_class="ovr"))
    assert got["f1"] == pytest.approx(reference.f1_score(y, answer, average="macro"))
    assert got["log_loss"] == pytest.approx(reference.log_loss(y, p))
    assert got["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(y, answer))


def test_regression_metrics() -> None:
    draw = np.random.default_rng(2)
    y, value = draw.normal(size=300), draw.normal(size=300)
    got = compute_all(y, value, VALUES)
    assert got["rmse"] == pytest.approx(reference.root_mean_squared_error(y, value))
    assert got["mae"] == pytest.approx(reference.mean_absolute_error(y, value))
    assert got["r2"] == pytest.approx(reference.r2_score(y, value))


def test_a_ranking_of_one_class_is_not_a_number() -> None:
    assert np.isnan(compute("roc_auc", np.ones(4), np.linspace(0, 1, 4), BINARY))


@pytest.mark.parametrize("schema", [BINARY, MULTI, VALUES])
def test_every_metric_of_a_task_is_computed(schema: InputSchema) -> None:
    y = np.array([0, 1, 1, 0])
    scores = np.eye(3)[y] if schema is MULTI else y.astype(float)
    named = {name for name, metric in METRICS.items() if schema.task in metric.tasks}
    assert set(compute_all(y, scores, schema)) == named
