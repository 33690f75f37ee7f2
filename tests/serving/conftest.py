"""A small contract and a model whose answers can be worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pyarrow as pa
import pytest
import torch

from raymill.data.contract import ColumnRule, Contract
from raymill.data.transform import Category, Number, Transform
from raymill.training.bundle import Bundle, write
from raymill.training.families import build
from raymill.training.job import make_job
from raymill.training.spec import ModelSpec, TrainingSpec


class TenthOfX:
    """P(fraud) = x / 10."""

    def predict(self, table: pa.Table) -> pa.Table:
        x = table.column("x").to_pylist()
        return pa.table({
            "prediction": ["fraud" if value > 5 else "fine" for value in x],
            "probability_fine": [1 - value / 10 for value in x],
            "probability_fraud": [value / 10 for value in x],
        })


@pytest.fixture
def predictor() -> TenthOfX:
    return TenthOfX()


@pytest.fixture
def contract() -> Contract:
    columns = {
        "id": ColumnRule(type="string", kind="ignore"),
        "x": ColumnRule(type="float64", kind="numeric", min=0, max=10),
        "n": ColumnRule(type="int64", kind="numeric", nullable=True, max=1_000_000),
        "colour": ColumnRule(type="string", kind="categorical", values=["red", "blue"],
                             closed=True, nullable=True),
        "code": ColumnRule(type="string", kind="categorical", pattern="[A-Z]{2}", sensitive=True),
        "when": ColumnRule(type="timestamp", kind="datetime", nullable=True, min="2020-01-01"),
        "photo": ColumnRule(type="binary", kind="image", nullable=True),
        "target": ColumnRule(type="string", kind="categorical", values=["fine", "fraud"],
                             closed=True),
    }
    return Contract(target="target", task="binary", classes=["fine", "fraud"], columns=columns)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A linear model of a number and a colour, its weights by chance."""
    columns = {
        "x": ColumnRule(type="float64", kind="numeric", min=0, max=10),
        "colour": ColumnRule(type="string", kind="categorical", nullable=True),
        "y": ColumnRule(type="string", kind="categorical", values=["no", "yes"], closed=True),
    }
    contract = Contract(target="y", task="binary", classes=["no", "yes"], columns=columns)
    transform = Transform(
        task="binary", target="y", classes=("no", "yes"), target_mean=0, target_std=1,
        numbers=(Number("x", 5.0, False, (0.0, 10.0), (-2.0, 2.0)),), dates=(),
        categories=(Category("colour", ("red", "blue")),), image_column=None, image=None,
    )
    job = make_job(ModelSpec(family="linear"), TrainingSpec(), None, transform.schema, None)
    torch.manual_seed(0)
    weights = build(job.family, job.params, job.schema).state_dict()
    weights = {name: torch.randn_like(weight) for name, weight in weights.items()}
    prepared = SimpleNamespace(transform=transform, contract=contract, profile={})
    path = tmp_path_factory.mktemp("model") / "bundle"
    return write(path, job, weights, prepared, {"threshold": 0.5}, {})  # type: ignore[arg-type]


def version_of(bundle: Bundle, digest: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(
        name="toy", version=7, digest=digest or bundle.digest, bundle_path=bundle.path
    )
