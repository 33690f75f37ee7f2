"""Rows a second of `raymill score`, beside the bare predict loop over the same rows.

1 M rows of 28 numbers in one Parquet file, an MLP 28-256-256-1. The floor is one process that calls
`Predictor.predict` on slices of a table in memory that is conformed already, with all of torch's
threads: no reading, no contract, no writing, no Ray. Ours reads, checks, scores and writes durable
parts with one actor a CPU; its rate is the actors', from the first part begun to the last on the
disk; `whole_seconds` in the details counts Ray Data's start and the input's hashing too.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.harness import Figure, sized
from benchmarks.nets import FEATURES
from raymill.cluster.local import ray_session
from raymill.cluster.spec import ClusterSpec
from raymill.data.conform import conform
from raymill.data.contract import ColumnRule, Contract
from raymill.data.transform import Number, Transform
from raymill.serving.score import ScoreOptions, score
from raymill.training.bundle import Bundle, write
from raymill.training.families import build
from raymill.training.job import make_job
from raymill.training.predictor import Predictor
from raymill.training.spec import ModelSpec, TrainingSpec

NAMES = [f"x{i}" for i in range(FEATURES)]
SLICE = 65_536


def make_bundle(path: Path) -> Bundle:
    """An MLP of two hidden layers with made-up weights over 28 numbers."""
    columns = {name: ColumnRule(type="float64", kind="numeric") for name in NAMES}
    columns |= {"id": ColumnRule(type="int64", kind="ignore"),
                "y": ColumnRule(type="string", kind="categorical", values=["no", "yes"])}
    contract = Contract(target="y", task="binary", classes=["no", "yes"], columns=columns,
                        key=["id"])
    transform = Transform(
        task="binary", target="y", classes=("no", "yes"), target_mean=0, target_std=1,
        numbers=tuple(Number(name, 0.0, False, (-3.0, 3.0), (-3.0, 3.0)) for name in NAMES),
        dates=(), categories=(), image_column=None, image=None,
    )
    model = ModelSpec.model_validate(
        {"family": "mlp", "width": 256, "depth": 2, "numeric_embedding": "none"})
    job = make_job(model, TrainingSpec(), None, transform.schema, None)
    torch.manual_seed(0)
    weights = build(job.family, job.params, job.schema).state_dict()
    prepared = SimpleNamespace(transform=transform, contract=contract, profile={})
    return write(path, job, weights, prepared, {"threshold": 0.5}, {})  # type: ignore[arg-type]


def make_rows(path: Path, rows: int) -> pa.Table:
    """Random numbers and an id, as a file in `path` too."""
    draw = np.random.default_rng(0)
    table = pa.table({"id": np.arange(rows),
                      **{name: draw.standard_normal(rows) for name in NAMES}})
    pq.write_table(table, path)
    return table


def version_of(bundle: Bundle) -> SimpleNamespace:
    return SimpleNamespace(name="bench", version=1, digest=bundle.digest, bundle_path=bundle.path)


def floor(bundle: Bundle, table: pa.Table) -> float:
    """Rows a second of the bare loop."""
    predictor = Predictor(bundle, threads=os.cpu_count())
    ready = conform(table, bundle.contract).table
    predictor.predict(ready.slice(0, SLICE))
    began = time.perf_counter()
    for low in range(0, len(ready), SLICE):
        predictor.predict(ready.slice(low, SLICE))
    return len(ready) / (time.perf_counter() - began)


def run() -> Figure:
    rows = sized(1_000_000, 200_000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = make_bundle(folder / "bundle")
        table = make_rows(folder / "rows.parquet", rows)
        bare = floor(bundle, table)
        with ray_session(ClusterSpec()):
            result = score(version_of(bundle), [str(folder / "rows.parquet")], folder / "out",
                           folder, ScoreOptions())
        assert result.scored == rows
    ours = result.rows_per_s
    return Figure(
        name="score", unit="rows/s", ours=ours, reference=bare,
        reference_is="bare predict loop in memory", goal="ratio >= 0.7", holds=ours / bare >= 0.7,
        details={"rows": rows, "features": FEATURES, "workers": os.cpu_count(),
                 "parts": result.parts, "whole_seconds": result.seconds},
    )
