"""Whole reports from made-up runs, for tests and for looking at."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from raymill.evaluation.evaluate import evaluate
from raymill.evaluation.gates import judge
from raymill.evaluation.report import ReportData
from raymill.evaluation.search_report import SearchData
from raymill.evaluation.spec import CostSpec, ObjectiveSpec, ThresholdSpec

from .fakes import FakePredictor, FakePrepared, Scorer, binary, images, regression

SPEC = "name: cards\ndata:\n  source: tx.parquet\n  target: is_fraud\n"


def report(
    prepared: FakePrepared, scores: Scorer, gates: list[str], threshold: ThresholdSpec | None = None
) -> ReportData:
    """The report of a model that answers with `scores`."""
    objective = ObjectiveSpec(bootstrap=300, gates=gates, threshold=threshold or ThresholdSpec())
    with tempfile.TemporaryDirectory() as folder:
        predictor = FakePredictor(scores, prepared, Path(folder))
        predictor.objective = {"threshold": 0.42, "rule": "least cost"}
        evaluation = evaluate(predictor, prepared, objective)
    metric = evaluation.metric
    return ReportData(
        title="cards <1> version 3",
        spec_yaml=SPEC,
        evaluation=evaluation,
        verdicts=judge(gates, evaluation),
        history=_history(metric, rising=metric != "rmse"),
        search=search(metric, _trials(rising=metric != "rmse")),
        profile=_profile(),
        lineage={"run": "20261123-1240-3fa9", "model": "cards version 3",
                 "data fingerprint": "9c4e" * 16, "spec": "51aa" * 16, "git_commit": "7387a70c" * 5,
                 "git_dirty": None, "python": "3.11.7", "packages": ["torch==2.13.0", "ray==2.60.0"]},
        notes=["column id was left out: it is distinct in every row"],
    )


def search(metric: str, trials: list[dict[str, Any]], **more: Any) -> SearchData:
    """A search over two numbers and a family with a field of its own."""
    known = [t for t in trials if t["value"] is not None]
    pick = min if metric == "rmse" else max
    return SearchData(
        metric=metric, trials=trials, best=pick(known, key=lambda t: t["value"])["number"],
        space={"training.lr": {"low": 1e-4, "high": 1e-2, "log": True},
               "model.dropout": {"low": 0.0, "high": 0.5},
               "model.family": {"choice": {"linear": {}, "mlp": {}}},
               "model.width": {"choice": [128, 256]}},
        importances={"training.lr": 0.66, "model.dropout": 0.24, "model.family": 0.1},
        below={"mlp": {"model.width": 0.8, "model.depth": 0.2}},
        note=f"from {len(known)} trials only: a hint, not a finding",
        advice=[{"found": "what mattered most was training.lr (66%)", "do": ""},
                {"found": "the best training.lr, 0.0098, lies at the high bound of its range (0.01)",
                 "do": "widen it, high: 0.046"}],
        rungs=[{"epoch": 3, "reached": 15, "stopped": 6, "best": 0.8},
               {"epoch": 18, "reached": 6, "stopped": 0, "best": 0.92}],
        **more,
    )


def _history(metric: str, rising: bool) -> list[dict[str, float]]:
    falls = [0.62 * 0.8**e + 0.3 for e in range(18)]
    rows = []
    for epoch, loss in enumerate(falls):
        value = 0.93 - 0.4 * (loss - 0.3) - 0.0006 * max(epoch - 12, 0) ** 2
        rows.append({"epoch": epoch, "train_loss": loss - 0.012 * epoch**0.5,
                     "val_loss": loss + 0.0004 * epoch**2, "lr": 1e-3,
                     f"val_{metric}": value if rising else 2 - value})
    return rows


def _trials(rising: bool) -> list[dict[str, Any]]:
    """16 trials, three at a time on two GPUs."""
    rng = np.random.default_rng(8)
    trials: list[dict[str, Any]] = []
    clocks = [0.0, 0.0, 0.0]
    for number in range(16):
        top = 0.9 + 0.02 * rng.random() - (0.05 * rng.random() if number < 6 else 0)
        epochs = 18 if number % 3 == 0 else int(rng.integers(3, 9))
        values = {str(e): top - 0.15 * 0.7**e + 0.002 * rng.normal() for e in range(epochs)}
        values = values if rising else {e: 2 - v for e, v in values.items()}
        best = max(values.values()) if rising else min(values.values())
        failed = number == 11
        family = "linear" if number % 4 == 1 else "mlp"
        own = {"model.width": int(rng.choice([128, 256]))} if family == "mlp" else {}
        slot = int(np.argmin(clocks))
        began, clocks[slot] = clocks[slot], clocks[slot] + 4.2 * epochs
        trials.append({
            "number": number, "value": None if failed else best,
            "state": "failed" if failed else "complete" if epochs == 18 else "pruned",
            "params": {"training.lr": 10 ** rng.uniform(-4, -2), "model.dropout": rng.random() / 2,
                       "model.family": family, **own},
            "values": {} if failed else values, "seconds": 4.2 * epochs,
            "cause": "the loss became infinite at epoch 2; lower training.lr" if failed else "",
            "place": {"gpus": [slot // 2], "device": "cpu", "began": began, "ended": clocks[slot]},
            "measures": {} if failed else {"average_precision": best,
                                           "p99_latency_ms": 2.0 + 3 * rng.random()},
        })
    return trials


def _profile() -> dict[str, object]:
    rng = np.random.default_rng(2)
    quantiles = np.quantile(rng.lognormal(3, 1, 9000), np.linspace(0, 1, 21)).tolist()
    bell = np.quantile(rng.normal(40, 12, 9000), np.linspace(0, 1, 21)).tolist()
    return {
        "rows": 9000,
        "columns": {
            "amount": {"kind": "numeric", "count": 9000, "nulls": 0, "distinct": 7212,
                       "mean": 33.2, "std": 41.0, "min": quantiles[0], "max": quantiles[-1],
                       "edges": quantiles},
            "age": {"kind": "numeric", "count": 9000, "nulls": 412, "distinct": 74, "mean": 40.1,
                    "std": 12.0, "min": bell[0], "max": bell[-1], "edges": bell},
            "colour": {"kind": "categorical", "count": 9000, "nulls": 9, "distinct": 3,
                       "top": [["red", 4000], ["green", 3500], ["<b>blue</b>", 1491]]},
        },
    }


def refused() -> ReportData:
    """A binary model that gradient boosting beats."""
    rng = np.random.default_rng(1)
    return report(
        binary(), lambda t: np.clip(t["truth"].to_numpy() + rng.normal(0, 0.35, len(t)), 0.01, 0.99),
        ["roc_auc >= 0.9", "beats: baseline", "beats: boosting", "p99_latency_ms <= 50"],
        ThresholdSpec(cost=CostSpec(false_positive=5, false_negative=20)),
    )


def passed() -> ReportData:
    """A binary model as good as can be."""
    return report(binary(), lambda t: t["truth"].to_numpy(), ["beats: baseline"])


def numbers() -> ReportData:
    """A regression model."""
    return report(regression(), lambda t: 10 + 3.9 * t["x"].to_numpy(), ["beats: baseline"])


def pictures(classes: int = 4) -> ReportData:
    """An image model that mixes up some of its classes."""
    prepared = images(600, classes)
    rng = np.random.default_rng(6)

    def scores(table: object) -> np.ndarray:
        y = table["y"].to_numpy()  # type: ignore[index]
        sure = np.eye(classes)[y] * 1.2 + rng.random((len(y), classes)) * 2
        return sure / sure.sum(axis=1, keepdims=True)

    return report(prepared, scores, ["accuracy >= 0.8", "beats: baseline"])
