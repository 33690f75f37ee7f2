from __future__ import annotations

import time

import numpy as np
import pytest
from sklearn import metrics as sk

from raymill.data.schema import InputSchema
from raymill.evaluation.bootstrap import Contender, bootstrap
from raymill.evaluation.measures import Cut, Measures
from raymill.training.metrics import compute_all

RNG = np.random.default_rng(5)


def binary(rows: int) -> tuple[np.ndarray, np.ndarray]:
    y = (RNG.random(rows) < 0.3).astype(np.int64)
    p = np.clip(0.3 + 0.3 * (y - 0.3) + RNG.normal(0, 0.2, rows), 0.001, 0.999)
    return y, np.round(p, 2)  # rounded: many ties


def multiclass(rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    y = RNG.integers(classes, size=rows)
    p = RNG.random((rows, classes))
    p[np.arange(rows), y] += 0.5
    return y, p / p.sum(axis=1, keepdims=True)


def schema(task: str, classes: int) -> InputSchema:
    names = tuple(map(str, range(classes))) or None
    return InputSchema((), (), None, task, names)  # type: ignore[arg-type]


# The metrics of unit weights are those of the training room, for every task.
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_points_equal_the_training_metrics(task: str) -> None:
    if task == "regression":
        y, scores = RNG.normal(40, 3, 500), RNG.normal(40, 3, 500)
    else:
        y, scores = binary(500) if task == "binary" else multiclass(500, 4)
    ours = Measures(task, y, scores, Cut()).point()
    theirs = compute_all(y, scores, schema(task, {"binary": 2, "multiclass": 4}.get(task, 0)))
    assert ours == pytest.approx(theirs, abs=1e-12)


# A threshold other than one half moves the class metrics as scikit-learn counts them.
def test_class_metrics_follow_the_threshold() -> None:
    y, p = binary(700)
    point = Measures("binary", y, p, Cut(0.21, 5, 50)).point()
    chosen = p >= 0.21
    assert point["f1"] == pytest.approx(sk.f1_score(y, chosen))
    assert point["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, chosen))
    wrong = 5 * np.sum(chosen & (y == 0)) + 50 * np.sum(~chosen & (y == 1))
    assert point["cost"] == pytest.approx(wrong / 700)


# A column of weights gives the metric of the rows repeated that often.
def test_weights_are_repetitions() -> None:
    y, p = binary(300)
    count = RNG.integers(0, 4, 300)
    weighted = Measures("binary", y, p, Cut()).values(count[:, None].astype(float))
    repeated = Measures("binary", y.repeat(count), p.repeat(count), Cut()).point()
    assert {n: v[0] for n, v in weighted.items()} == pytest.approx(repeated)


# A resample without a class has no AUC, and the interval is of the others.
def test_an_absent_class_is_not_a_number() -> None:
    y = np.array([0] * 30 + [1])
    found = bootstrap("binary", y, {"m": Contender(np.linspace(0, 1, 31), Cut())}, resamples=200,
                      confidence=0.95)
    assert found.metrics["m"]["roc_auc"].value == 1
    assert found.metrics["m"]["roc_auc"].low == 1


# The interval of a mean has the width that theory gives, and holds the truth as often as it says.
def test_intervals_cover() -> None:
    held = 0
    for trial in range(100):
        y = np.random.default_rng(trial).normal(0, 1, 300)
        contender = {"m": Contender(np.zeros(300), Cut())}
        found = bootstrap("regression", y, contender, resamples=200, confidence=0.9, seed=trial)
        estimate = found.metrics["m"]["rmse"]
        held += estimate.low <= 1 <= estimate.high
    assert 80 <= held <= 97


# Two contenders that differ little but alike have a difference far narrower than either interval.
def test_differences_are_paired() -> None:
    y, p = binary(2000)
    near = p - 0.01 * (RNG.random(2000) < 0.1)
    found = bootstrap(
        "binary", y, {"m": Contender(p, Cut()), "r": Contender(near, Cut())}, resamples=200,
        confidence=0.95,
    )
    alone, gap = found.metrics["m"]["roc_auc"], found.difference["r"]["roc_auc"]
    assert gap.high - gap.low < (alone.high - alone.low) / 5
    assert gap.value == pytest.approx(alone.value - found.metrics["r"]["roc_auc"].value)


# Too many rows for the work allowed: fewer are resampled, it is said, and the width stays true.
def test_a_cap_on_rows_is_told_and_scaled() -> None:
    y, p = binary(20_000)
    args = {"resamples": 300, "confidence": 0.95}
    full = bootstrap("binary", y, {"m": Contender(p, Cut())}, **args)
    part = bootstrap("binary", y, {"m": Contender(p, Cut())}, work=300 * 4000, **args)
    assert full.note == "" and "4,000 of the 20,000 test rows" in part.note
    a, b = full.metrics["m"]["roc_auc"], part.metrics["m"]["roc_auc"]
    assert a.value == b.value
    assert (b.high - b.low) / (a.high - a.low) == pytest.approx(1, abs=0.3)


# The same seed gives the same interval.
def test_the_bootstrap_is_deterministic() -> None:
    y, p = multiclass(200, 3)
    one, two = (
        bootstrap("multiclass", y, {"m": Contender(p, Cut())}, resamples=100, confidence=0.95)
        for _ in range(2)
    )
    assert one == two


# A thousand resamples of an Adult-sized test set stay a matter of seconds.
def test_sixteen_thousand_rows_are_quick() -> None:
    y, p = binary(16_281)
    started = time.process_time()
    bootstrap("binary", y, {"m": Contender(p, Cut())}, resamples=1000, confidence=0.95)
    assert time.process_time() - started < 10
