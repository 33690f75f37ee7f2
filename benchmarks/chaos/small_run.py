"""A training run small enough to be killed many times, and the hash of what it came to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from raymill.data.schema import InputSchema
from raymill.events import Notify, ignore
from raymill.training.checkpoint import MODEL, OPTIMIZER, at, find, read_group
from raymill.training.job import TrainJob, make_job
from raymill.training.loop import fit
from raymill.training.result import FitResult
from raymill.training.session import InlineSession
from raymill.training.shard import Shard
from raymill.training.spec import ModelSpec, TrainingSpec

SCHEMA = InputSchema(("a", "b"), (("c", 6),), None, "binary", ("no", "yes"))
ROWS, BATCH = 640, 64
STEPS = ROWS // BATCH


def block(rows: int, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Rows whose target follows from their numbers."""
    draw = np.random.default_rng(seed)
    numeric = draw.normal(size=(rows, 2)).astype(np.float32)
    return {"numeric": numeric, "categorical": draw.integers(2, 6, size=(rows, 1)),
            "target": (numeric.sum(axis=1) > 0.3).astype(np.int64)}


def job(**training: Any) -> TrainJob:
    """A small MLP with dropout, so that a lost random state would show."""
    model = ModelSpec.model_validate(
        {"family": "mlp", "width": 16, "depth": 1, "dropout": 0.2, "embedding": 4})
    values = {"epochs": 3, "batch_size": BATCH, "lr": 1e-2, "gpu": "never", **training}
    return make_job(model, TrainingSpec.model_validate(values), None, SCHEMA, None)


def shards() -> tuple[Shard, Shard]:
    """Training and validation rows."""
    return Shard([block(ROWS, 0)]), Shard([block(120, 1)])


def train(folder: Path, notify: Notify = ignore, **training: Any) -> FitResult:
    """A run in this process with its checkpoints in `folder`."""
    return fit(job(**training), *shards(), InlineSession(folder), notify)


class Watched(InlineSession):
    """A session that calls `each` after every step and batch of an evaluation."""

    def __init__(self, folder: Path, each: Callable[[], None]) -> None:
        super().__init__(folder)
        self._each = each

    def alive(self, typical_s: Callable[[], float]) -> None:
        self._each()


def digest(folder: Path, number: int | None = None) -> str:
    """sha256 over the sorted (name, dtype, shape, bytes) of the weights and the optimizer of a
    checkpoint of `folder`, the newest good one if no number is given."""
    path, total = at(folder, number or find(folder).number), hashlib.sha256()
    for group in (MODEL, OPTIMIZER):
        for name, tensor in sorted(read_group(path, group).items()):
            total.update(f"{group} {name} {tensor.dtype} {list(tensor.shape)}".encode())
            total.update(tensor.numpy().tobytes())
    return total.hexdigest()
