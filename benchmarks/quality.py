"""Quality on real data: one default search of 20 trials a row (images: one training, no
search), against published or measured references.

Needs a folder with the data sets, named by `RAYMILL_DATA`; the repository holds none:
`adult/train.csv` and `test.csv` (UCI's own split), `california_housing/housing.csv`,
`fraud/transactions.parquet` (the Fraud Detection Handbook's simulated payments),
`fashion_mnist/train.parquet` and `test.parquet`. Each row of the
table: data set, family (`auto`: the search chooses it, and `won by` says which it was), metric, ours
on the test rows, the goal, the reference beside it, and the seconds of the whole run, which count for
Adult's first row too. The figure's `ours` is how many goals hold.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from raymill.errors import UsageError
from raymill.pipeline import run as run_spec
from raymill.spec import spec_from

from .harness import Figure, scale, sized

TRIALS = 20
WITHIN_S = 300.0  # the time that Adult's search, training and evaluation may take on two cores
GAP_DAYS, TRAIN_DAYS, TEST_DAYS = 7, 7, 7
FIRST = "2018-07-25"


@dataclass(frozen=True)
class Case:
    """One search: the data's part of the spec, the family, and what it should come to."""

    name: str
    family: str
    data: dict[str, Any]
    metric: str
    goal: float
    reference: float
    reference_is: str
    within_s: float = float("inf")
    unit: float = 1.0  # of the metric, in the target's unit
    trials: int = TRIALS
    model: dict[str, Any] = field(default_factory=dict)  # beside the family


def folder() -> Path:
    """Where the data sets lie.

    Raises:
        UsageError: nowhere.
    """
    place = os.environ.get("RAYMILL_DATA")
    if not place or not Path(place).is_dir():
        raise UsageError(
            "the figure quality needs real data, which the repository does not hold",
            cure="Set RAYMILL_DATA to a folder with adult/train.csv and test.csv, "
                 "california_housing/housing.csv, fraud/transactions.parquet and "
                 "fashion_mnist/train.parquet and test.parquet.")
    return Path(place)


def tables(place: Path) -> list[Case]:
    adult = {"source": str(place / "adult" / "train.csv"), "target": "income",
             "test": str(place / "adult" / "test.csv")}
    houses = {"source": str(place / "california_housing" / "housing.csv"),
              "target": "median_house_value",
              "split": {"by": "random", "train": 0.64, "validation": 0.16, "test": 0.2}}
    clothes = {"source": str(place / "fashion_mnist" / "train.parquet"), "target": "label",
               "test": str(place / "fashion_mnist" / "test.parquet")}
    published = "XGBoost tuned, Gorishniy et al. 2021"
    return [
        Case("adult", "auto", adult, "roc_auc", 0.928, 0.9288, "AutoGluon 1.6 medium quality",
             WITHIN_S),
        Case("adult", "mlp", adult, "roc_auc", 0.915, 0.914, "FT-Transformer, same paper"),
        Case("california", "gbdt", houses, "rmse", 0.46, 0.433, published, unit=1e5),
        Case("california", "mlp", houses, "rmse", 0.50, 0.499, "MLP, same paper", unit=1e5),
        Case("fashion", "image_resnet", clothes, "accuracy", 0.925, 0.934,
             "2 convolutions, pooling and batch norm, the data set's README", trials=0,
             model={"flip": True}),  # clothes may be mirrored
    ]


def payments(place: Path, work: Path) -> Case:
    """A week to train on, a week's gap (labels come late), a week to test on, as the Handbook has
    it; the reference is a random forest on the same rows and columns."""
    rows = pd.read_parquet(place / "fraud" / "transactions.parquet")
    rows = rows.drop(columns="TX_FRAUD_SCENARIO")
    days = (pd.to_datetime(rows["TX_DATETIME"]).dt.normalize() - pd.Timestamp(FIRST)).dt.days
    train = rows[(days >= 0) & (days < TRAIN_DAYS)]
    start = TRAIN_DAYS + GAP_DAYS
    test = rows[(days >= start) & (days < start + TEST_DAYS)]
    drop = [name for name in IDENTITIES if name in rows.columns]
    for name, part in (("train", train), ("test", test)):
        part.iloc[:: 1 if scale() == 1 else 20].to_parquet(work / f"{name}.parquet", index=False)
    data = {"source": str(work / "train.parquet"), "test": str(work / "test.parquet"),
            "target": "TX_FRAUD", "task": "binary", "drop": drop,
            "split": {"by": "stratified", "train": 0.8, "validation": 0.2, "test": 0.0}}
    reference = forest(pd.read_parquet(work / "train.parquet").drop(columns=drop),
                       pd.read_parquet(work / "test.parquet").drop(columns=drop))
    return Case("fraud", "auto", data, "average_precision", reference, reference,
                "scikit-learn's random forest, same rows and columns")


# Names of rows, people and places, and the time in other units: what no later week has again.
IDENTITIES = ("TRANSACTION_ID", "CUSTOMER_ID", "TERMINAL_ID", "TX_DATETIME", "TX_TIME_SECONDS",
              "TX_TIME_DAYS")


def forest(train: pd.DataFrame, test: pd.DataFrame) -> float:
    """The average precision of a random forest of 100 trees, as the Handbook's."""
    numbers = list(train.drop(columns="TX_FRAUD").select_dtypes("number").columns)
    texts = [name for name in train.columns if name not in (*numbers, "TX_FRAUD")]
    columns = make_column_transformer(
        ("passthrough", numbers),
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), texts))
    model = make_pipeline(columns, RandomForestClassifier(random_state=0, n_jobs=-1))
    model.fit(train, train["TX_FRAUD"])
    scores = np.asarray(model.predict_proba(test))[:, 1]
    return float(average_precision_score(test["TX_FRAUD"], scores))


def measured(case: Case, home: Path) -> dict[str, Any]:
    """One row of the table."""
    spec = spec_from({
        "name": f"{case.name}-{case.family}", "data": case.data,
        "model": {"family": case.family, **case.model}, "objective": {"metric": case.metric},
        "tuning": {"trials": sized(case.trials, min(case.trials, 2))}, "training": {"gpu": "never"},
    })
    began = time.perf_counter()
    result = run_spec(spec, base=home, home=home)
    took = time.perf_counter() - began
    value = result.evaluation.metrics[case.metric].value / case.unit
    good = value <= case.goal if case.metric == "rmse" else value >= case.goal
    return {
        "data": case.name, "family": case.family, **case.model, "won by": result.trained.family,
        "metric": case.metric, "ours": round(value, 4), "goal": round(case.goal, 4),
        "reference": round(case.reference, 4), "reference is": case.reference_is,
        "trials": len(result.search.trials), "seconds": round(took, 1),
        "holds": bool(good and took <= case.within_s),
    }


def run() -> Figure:
    place = folder()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        cases = [*tables(place), payments(place, work)]
        rows = [measured(case, work / f"{case.name}-{case.family}") for case in cases]
    held = sum(row["holds"] for row in rows)
    return Figure(
        name="quality", unit="goals that hold", ours=held, reference=len(rows),
        reference_is="all goals", goal="every goal of the table", holds=held == len(rows),
        details={"table": rows})
