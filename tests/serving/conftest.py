"""A small contract and a model whose answers can be worked out by hand."""

from __future__ import annotations

import pyarrow as pa
import pytest

from raymill.data.contract import ColumnRule, Contract
from raymill.training.bundle import Bundle

from .models import small_bundle


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
    return small_bundle(tmp_path_factory.mktemp("model") / "bundle")
