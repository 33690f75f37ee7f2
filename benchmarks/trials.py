"""Seconds a trial of raymill's search, beside Ray Tune's plain function trainable.

Both run the same number of trials of the same network, epochs and data, side by side as far as the
CPUs allow, through the same training loop, without a scheduler. The plain trainable takes its
tensors from `tune.with_parameters`, as Tune's guide says; ours keeps its workers warm and shares
the tensors through the object store. Start-up of Ray is in neither.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from benchmarks.harness import Figure, sized
from benchmarks.prepared import fraud
from raymill.cluster.local import ray_session
from raymill.cluster.spec import ClusterSpec
from raymill.data.prepare import Prepared
from raymill.training.job import make_job
from raymill.training.loop import fit
from raymill.training.session import InlineSession
from raymill.training.shard import Shard
from raymill.training.spec import ModelSpec, TrainingSpec
from raymill.tuning.search import search
from raymill.tuning.spec import TuningSpec

MODEL = ModelSpec(family="mlp", width=64, depth=2, numeric_embedding="none")  # type: ignore[call-arg]
TRAINING = TrainingSpec(epochs=2, batch_size=1024, patience=None)


class TellingSession(InlineSession):
    """Reports to Tune what it is told."""

    def report(self, metrics: Any) -> None:
        tune.report(dict(metrics))


def plain(prepared: Prepared, trials: int, folder: Path) -> float:
    """Seconds of Tune's plain search."""
    blocks = {name: ray.get(prepared.tensors(name)) for name in ("train", "validation")}
    schema = prepared.transform.schema

    def trainable(config: dict[str, Any], blocks: Any) -> None:
        torch.set_num_threads(1)
        job = make_job(MODEL, TRAINING.model_copy(update=config), None, schema, None)
        fit(job, Shard(blocks["train"]), Shard(blocks["validation"]), TellingSession())

    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(trainable, blocks=blocks), {"cpu": 1}),
        param_space={"lr": tune.loguniform(3e-4, 5e-3)},
        tune_config=tune.TuneConfig(num_samples=trials),
        run_config=tune.RunConfig(storage_path=str(folder), name="plain", verbose=0),
    )
    started = time.perf_counter()
    results = tuner.fit()
    seconds = time.perf_counter() - started
    if results.num_errors:
        raise RuntimeError(f"{results.num_errors} plain trials failed: {results.errors[0]}")
    return seconds


def ours(prepared: Prepared, trials: int, folder: Path) -> float:
    """Seconds of raymill's search."""
    spec = TuningSpec.model_validate({
        "trials": trials, "scheduler": "none",
        "space": {"training.lr": {"low": 3e-4, "high": 5e-3, "log": True}},
    })
    started = time.perf_counter()
    found = search(MODEL, TRAINING, None, spec, prepared, folder / "ours")
    seconds = time.perf_counter() - started
    done = [trial for trial in found.trials if trial.state == "complete"]
    if len(done) != trials:
        raise RuntimeError(f"{len(done)} of {trials} trials completed")
    return seconds


def run() -> Figure:
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Tune's own table stays off the screen
    trials, payments = sized(16, 2), sized(145_000, 4000)
    with tempfile.TemporaryDirectory() as place, ray_session(ClusterSpec()) as capacity:
        folder = Path(place)
        prepared = fraud(folder, payments)
        reference = plain(prepared, trials, folder) / trials
        own = ours(prepared, trials, folder) / trials
        rows = prepared.rows["train"]
    return Figure(
        name="trials", unit="s/trial", ours=own, reference=reference,
        reference_is="Tune's plain function trainable", goal="ratio <= 0.6",
        holds=own / reference <= 0.6,
        details={"trials": trials, "rows": rows, "epochs": TRAINING.epochs,
                 "side_by_side": capacity.cpus},
    )
