"""Prepared example data and a model trained on it, for the figures that need them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from raymill.data.prepare import Prepared, prepare
from raymill.data.spec import DataSpec, SplitSpec
from raymill.events import ignore
from raymill.training.bundle import Bundle, write
from raymill.training.job import TrainJob, make_job
from raymill.training.loop import fit
from raymill.training.session import InlineSession
from raymill.training.shard import Shard
from raymill.training.spec import ModelSpec, TrainingSpec

FRAUD = Path(__file__).parents[1] / "examples" / "fraud"


def make_payments(folder: Path, payments: int) -> None:
    """The fraud example's data in `folder`."""
    command = [sys.executable, str(FRAUD / "make_data.py"), str(folder), "--payments",
               str(payments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def fraud_spec() -> DataSpec:
    return DataSpec(
        source="payments", target="is_fraud", time="tx_time",
        drop=["transaction_id", "customer_id", "terminal_id"], split=SplitSpec(by="stratified"),
    )


def fraud(folder: Path, payments: int) -> Prepared:
    """Prepared payments; needs a running Ray."""
    make_payments(folder, payments)
    return prepare(fraud_spec(), folder, folder / "cache", ignore)


def small_bundle(folder: Path, prepared: Prepared, *, epochs: int = 1) -> Bundle:
    """A bundle of the default MLP, trained a little; needs a running Ray."""
    import ray

    job: TrainJob = make_job(
        ModelSpec(), TrainingSpec(epochs=epochs, batch_size=1024), None,
        prepared.transform.schema, None,
    )
    train, validation = (
        Shard(ray.get(prepared.tensors(split)), seed=0) for split in ("train", "validation")
    )
    result = fit(job, train, validation, InlineSession())
    return write(folder / "bundle", job, result.weights, prepared, {"threshold": 0.5},
                 {"made_by": "benchmarks"})
