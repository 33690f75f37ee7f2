"""Seconds a trial of raymill's search, beside serial Optuna, Ray Tune's plain function trainable,
and a TorchTrainer nested in each trial.

All run trials of the same network, epochs and data through the same training loop, without a
scheduler: serial Optuna one after the other with two threads of torch, the others in two slots of
one thread. The plain trainable takes its tensors from `tune.with_parameters`, as Tune's guide says;
the nested one is Ray's documented way of Train inside Tune, measured on a few trials; ours keeps
its workers warm and shares the tensors through the object store. Start-up of Ray is in none, nor is
the making of the tensors from the prepared rows; the starts of the trials' processes are.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import ray
import ray.train
import torch
from ray import tune
from ray.train.torch import TorchTrainer

from benchmarks.harness import Figure, sized
from benchmarks.prepared import fraud
from raymill.cluster.local import ray_session
from raymill.cluster.spec import ClusterSpec
from raymill.data.prepare import Prepared
from raymill.training.job import TrainJob, make_job
from raymill.training.loop import fit
from raymill.training.placement import hold, holding
from raymill.training.session import InlineSession
from raymill.training.shard import Shard
from raymill.training.spec import ModelSpec, TrainingSpec
from raymill.tuning.search import search
from raymill.tuning.spec import TuningSpec

SLOTS, SPLITS = 2, ("train", "validation")
LOW, HIGH = 3e-4, 5e-3
MODEL = ModelSpec(family="mlp", width=64, depth=2, numeric_embedding="none")  # type: ignore[call-arg]
TRAINING = TrainingSpec(epochs=2, batch_size=1024, patience=None)


class TellingSession(InlineSession):
    """Reports to Tune what it is told."""

    def report(self, metrics: Any) -> None:
        tune.report(dict(metrics))


class TrainSession(InlineSession):
    """Reports to Ray Train what it is told."""

    def report(self, metrics: Any) -> None:
        ray.train.report(dict(metrics))


def job_of(prepared: Prepared, lr: float) -> TrainJob:
    return make_job(MODEL, TRAINING.model_copy(update={"lr": lr}), None,
                    prepared.transform.schema, None)


def blocks_of(prepared: Prepared) -> dict[str, Any]:
    return {name: ray.get(blocks) for name, blocks in hold(prepared).items()}


def serial(prepared: Prepared, trials: int) -> float:
    """Seconds of Optuna alone, in this process."""
    blocks = blocks_of(prepared)
    train, validation = (Shard(blocks[name]) for name in SPLITS)
    torch.set_num_threads(SLOTS)

    def objective(trial: optuna.Trial) -> float:
        job = job_of(prepared, trial.suggest_float("lr", LOW, HIGH, log=True))
        return fit(job, train, validation, InlineSession()).best[f"val_{job.metric}"]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    started = time.perf_counter()
    study.optimize(objective, n_trials=trials)
    return time.perf_counter() - started


def plain(prepared: Prepared, trials: int, folder: Path) -> float:
    """Seconds of Tune's plain search."""
    def trainable(config: dict[str, Any], blocks: Any) -> None:
        torch.set_num_threads(1)
        fit(job_of(prepared, config["lr"]), Shard(blocks["train"]), Shard(blocks["validation"]),
            TellingSession())

    wrapped = tune.with_parameters(trainable, blocks=blocks_of(prepared))
    return tuned(tune.with_resources(wrapped, {"cpu": 1}), trials, folder, "plain")


def nested(prepared: Prepared, trials: int, folder: Path) -> float:
    """Seconds of a search whose trials are Ray Train runs of one worker."""
    blocks = {name: ray.put(each) for name, each in blocks_of(prepared).items()}

    def work(config: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        train, validation = (Shard(ray.get(config[name])) for name in SPLITS)
        fit(job_of(prepared, config["lr"]), train, validation, TrainSession())

    def trainable(config: dict[str, Any]) -> dict[str, Any]:
        name = tune.get_context().get_trial_id()
        TorchTrainer(
            work, train_loop_config={**blocks, **config},
            scaling_config=ray.train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
            run_config=ray.train.RunConfig(name=name, storage_path=str(folder / "nested-runs")),
        ).fit()
        return {"done": True}

    held = tune.with_resources(trainable, {"CPU": 0, "memory": 64 * 2**20})
    return tuned(held, trials, folder, "nested")


def tuned(trainable: Any, trials: int, folder: Path, name: str) -> float:
    tuner = tune.Tuner(
        trainable, param_space={"lr": tune.loguniform(LOW, HIGH)},
        tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=SLOTS),
        run_config=tune.RunConfig(storage_path=str(folder), name=name, verbose=0),
    )
    started = time.perf_counter()
    results = tuner.fit()
    seconds = time.perf_counter() - started
    if results.num_errors:
        raise RuntimeError(f"{results.num_errors} {name} trials failed: {results.errors[0]}")
    return seconds


def ours(prepared: Prepared, trials: int, folder: Path) -> float:
    """Seconds of raymill's search."""
    spec = TuningSpec.model_validate({
        "trials": trials, "scheduler": "none", "concurrency": SLOTS, "resources": {"cpu": 1},
        "space": {"training.lr": {"low": LOW, "high": HIGH, "log": True}},
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
    trials, payments = sized(24, 2), sized(145_000, 4000)
    few = min(4, trials)
    with (tempfile.TemporaryDirectory() as place, ray_session(ClusterSpec(cpus=SLOTS)),
          ExitStack() as stack):
        folder = Path(place)
        prepared = fraud(folder, payments)
        stack.enter_context(holding(prepared))
        hold(prepared)
        seconds = {
            "serial Optuna": serial(prepared, trials) / trials,
            "plain Tune": plain(prepared, trials, folder) / trials,
            "raymill": ours(prepared, trials, folder) / trials,
            "nested Ray Train": nested(prepared, few, folder) / few,
        }
        rows = prepared.rows["train"]
    own = seconds["raymill"]
    ratios = {name: own / other for name, other in seconds.items() if name != "raymill"}
    goals = {"serial Optuna": 0.75, "plain Tune": 0.4, "nested Ray Train": 0.1}
    return Figure(
        name="trials", unit="s/trial", ours=own, reference=seconds["serial Optuna"],
        reference_is="serial Optuna",
        goal="<= 0.75 of serial Optuna, <= 0.4 of Tune's plain trainable, <= 0.1 of nested Train",
        holds=all(ratios[name] <= goal for name, goal in goals.items()),
        details={"trials": trials, "nested_trials": few, "rows": rows, "epochs": TRAINING.epochs,
                 "slots": SLOTS, "seconds_a_trial": seconds, "ratios": ratios, "goals": goals},
    )
