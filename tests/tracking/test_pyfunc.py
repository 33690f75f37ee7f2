"""A registered version answers through MLflow in a process of its own, as through raymill."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from raymill.data import stats, transform
from raymill.data.contract import Contract
from raymill.tracking.home import Home
from raymill.tracking.registry import Registry
from raymill.training import bundle as bundles
from raymill.training.families import build
from raymill.training.job import make_job
from raymill.training.predictor import Predictor
from raymill.training.spec import ModelSpec, TrainingSpec

# MLflow 3.17 calls a loader that SQLAlchemy 2.1 is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")
LOAD = """\
import sys, mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/shop@champion")
assert len(model.predict(model.input_example)) == 1
model.predict(pd.read_parquet(sys.argv[2])).to_parquet(sys.argv[3])
"""


def frame(rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({
        "amount": rng.normal(50, 20, rows).clip(0, 100),
        "count": pd.Series(rng.integers(1, 5, rows)).where(rng.random(rows) > 0.2),
        "shop": rng.choice(["web", "till"], rows),
        "time": pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 999, rows), "h"),
    })


@pytest.fixture
def bundle(tmp_path: Path) -> bundles.Bundle:
    contract = Contract.model_validate({
        "target": "fraud", "task": "binary", "classes": ["no", "yes"],
        "columns": {
            "amount": {"type": "float64", "kind": "numeric", "min": 0, "max": 100},
            "count": {"type": "int64", "kind": "numeric", "nullable": True, "min": 1, "max": 4},
            "shop": {"type": "string", "kind": "categorical", "values": ["web", "till"]},
            "time": {"type": "timestamp", "kind": "datetime", "min": "2026-01-01T00:00:00"},
            "fraud": {"type": "string", "kind": "categorical", "values": ["no", "yes"]},
        },
    })
    train = pa.table({
        **{name: pa.array(column, from_pandas=True) for name, column in frame(300).items()},
        "fraud": ["no", "yes"] * 150,
    })
    schema = pa.schema([(name, rule.arrow) for name, rule in contract.columns.items()])
    fitted = transform.from_summaries(
        stats.of_table(train.select(schema.names).cast(schema), contract), contract, None)
    job = make_job(ModelSpec(family="linear"), TrainingSpec(), None, fitted.schema, None)
    weights = build(job.family, job.params, job.schema).state_dict()
    prepared = SimpleNamespace(transform=fitted, contract=contract, profile={})
    return bundles.write(tmp_path / "bundle", job, weights, prepared, {"threshold": 0.4}, {})


def test_mlflow_answers_as_raymill_does(tmp_path: Path, bundle: bundles.Bundle) -> None:
    home = Home.find(tmp_path / "home")
    registry = Registry(home.tracking_uri, home)
    made = registry.register("shop", bundle, None, {}, {})
    registry.promote("shop", made.version)
    asked, answered = tmp_path / "asked.parquet", tmp_path / "answered.parquet"
    frame(50).to_parquet(asked)
    call = [sys.executable, "-c", LOAD, home.tracking_uri, str(asked), str(answered)]
    subprocess.run(call, check=True, cwd=tmp_path)
    expected = Predictor(bundle).predict_frame(frame(50))
    pd.testing.assert_frame_equal(pd.read_parquet(answered), expected, atol=1e-6)

    assert made.bundle_path is not None
    weights = made.bundle_path / "model.safetensors"
    broken = bytearray(weights.read_bytes())
    broken[-1] ^= 1
    weights.write_bytes(broken)
    refused = subprocess.run(call, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "ArtifactError: " in refused.stderr
    assert "model.safetensors must be as it was written" in refused.stderr
