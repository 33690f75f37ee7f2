"""Small made-up data for the tests of training; not a test itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from raymill.data.contract import Contract
from raymill.data.prepare import Prepared
from raymill.data.rules import ColumnRule
from raymill.data.schema import InputSchema
from raymill.data.transform import Category, Number, Transform
from raymill.training.job import TrainJob, make_job
from raymill.training.shard import Shard
from raymill.training.spec import ModelSpec, TrainingSpec

Block = dict[str, np.ndarray[Any, Any]]
BINARY = InputSchema(("a", "b"), (("c", 6),), None, "binary", ("no", "yes"))
VALUES = InputSchema(("a", "b"), (), None, "regression", None, target_mean=10.0, target_std=4.0)
CLASSES = InputSchema(("a", "b"), (("c", 6),), None, "multiclass", ("x", "y", "z"))


def block(rows: int, schema: InputSchema = BINARY, seed: int = 0) -> Block:
    """Rows whose target follows from their numbers."""
    draw = np.random.default_rng(seed)
    made: Block = {"numeric": draw.normal(size=(rows, 2)).astype(np.float32)}
    if schema.categorical:
        made["categorical"] = draw.integers(2, 6, size=(rows, 1))
    score = made["numeric"].sum(axis=1)
    if schema.task == "regression":
        made["target"] = score.astype(np.float32)
    elif schema.task == "binary":
        made["target"] = (score > 0.3).astype(np.int64)
    else:
        made["target"] = np.digitize(score, [-0.5, 0.5]).astype(np.int64)
    return made


def job(schema: InputSchema = BINARY, *, family: str = "mlp", metric: str | None = None,
        project: str | None = None, model: dict[str, Any] | None = None, **training: Any
        ) -> TrainJob:
    """A small job: 4 epochs of batches of 32 unless `training` says otherwise."""
    small = {"width": 16, "depth": 1, "dropout": 0.2, "embedding": 4} if family == "mlp" else {}
    spec = ModelSpec.model_validate({"family": family, **(small if model is None else model)})
    values = {"epochs": 4, "batch_size": 32, "lr": 1e-2, "gpu": "never", **training}
    return make_job(spec, TrainingSpec.model_validate(values), metric, schema, project)


def shards(schema: InputSchema = BINARY, rows: int = 200) -> tuple[Shard, Shard]:
    return Shard([block(rows, schema)]), Shard([block(60, schema, seed=1)])


def prepared(path: Path, schema: InputSchema = BINARY) -> Prepared:
    """Prepared data without files: what a bundle takes of it."""
    columns = {
        "a": ColumnRule(type="float64", kind="numeric"),
        "b": ColumnRule(type="float64", kind="numeric"),
        "c": ColumnRule(type="string", kind="categorical"),
        "y": ColumnRule(type="string", kind="categorical"),
    }
    if not schema.categorical:
        del columns["c"]
    if schema.classes is None:
        columns["y"] = ColumnRule(type="float64", kind="numeric")
    classes = list(schema.classes) if schema.classes else None
    contract = Contract(target="y", task=schema.task, classes=classes, columns=columns)
    transform = Transform(
        task=schema.task, target="y", classes=schema.classes,
        target_mean=schema.target_mean, target_std=schema.target_std,
        numbers=tuple(Number(n, 0.0, False, (-5.0, 5.0), (-5.0, 5.0)) for n in schema.numeric),
        dates=(), categories=tuple(Category(n, tuple("pqrs")) for n, _ in schema.categorical),
        image_column=None, image=None,
    )
    return Prepared(path=path, fingerprint="f" * 64, contract=contract, transform=transform,
                    profile={"rows": 3}, rows={"train": 3}, total_rows=3, quarantined=0,
                    in_gap=0, notes=[], files=[])
