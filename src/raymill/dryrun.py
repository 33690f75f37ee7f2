"""What a run will take, from a measured dry run: the data for real, then a piece of each stage.

The data is prepared as the run will (and is kept for it). On it, a worker is started, a few
epochs of some rows are trained, the model is evaluated, and a request is answered. The rest is
arithmetic over the plan.
"""

from __future__ import annotations

import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psutil

from raymill.cluster.attach import located
from raymill.cluster.environment import MARK
from raymill.cluster.local import ray_session
from raymill.data.prepare import Prepared, prepare
from raymill.evaluation.evaluate import evaluate
from raymill.events import Notify, note
from raymill.spec import Spec
from raymill.tracking.home import Home
from raymill.training.bundle import write as write_bundle
from raymill.training.checkpoint import load_weights
from raymill.training.factories import allow, allowed
from raymill.training.job import TrainJob, make_job
from raymill.training.loop import fit
from raymill.training.objective import DEFAULT_METRIC
from raymill.training.params import is_factory
from raymill.training.predictor import Predictor
from raymill.training.session import InlineSession
from raymill.training.shard import Shard
from raymill.tuning.spec import TuningSpec

from .plan import MB, Plan, StagePlan
from .project import own_code
from .workspace import prepared_in

ROWS = 8192  # trained on in the dry run, at most
EPOCHS = 2
TRAIN_STARTS = 3  # Ray Train starts a controller, its helpers, and then the workers
POLL_S = 0.1
T = TypeVar("T")
GRACE_S = 1.0  # per trial, of Tune's and Optuna's own


@dataclass(frozen=True)
class Part:
    """The time of one stage, and what it was worked out from."""

    name: str
    seconds: float
    how: str


@dataclass(frozen=True)
class Estimate:
    """Of a whole run: its parts' times, the most memory at once, the cost at a price an hour."""

    parts: list[Part]
    memory_mb: float
    request_ms: float
    cost: float | None = None

    @property
    def seconds(self) -> float:
        return sum(part.seconds for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "seconds": self.seconds}


def estimate(
    spec: Spec, base: Path, plan: Plan, price: float | None, notify: Notify
) -> Estimate:
    """Measure, and work out. `price` is that of all the plan's machines for an hour.

    Raises:
        RaymillError: what a run itself would raise at its stages.
    """
    home, began = Home.find(), time.monotonic()
    stages = {stage.name: stage for stage in plan.stages}
    with _watched() as peak, ray_session(located(spec.cluster, home.path), base, notify):
        started = time.monotonic() - began
        data, data_s = _timed(lambda: prepare(spec.data, base, home.cache / "data", notify,
                                              spec.objective.positive, prepared_in(spec)))
        worker_s, worker_mb = _worker()
        note(notify, f"a worker starts in {worker_s:.1f} s and holds {worker_mb:.0f} MB")
        job = _job(spec, base, home, data)
        with tempfile.TemporaryDirectory(prefix="dry-", dir=home.cache) as folder:
            row_s, predictor = _train(job, data, Path(folder), home)
            note(notify, f"one row of an epoch takes {row_s * 1e6:.1f} microseconds")
            _, evaluate_s = _timed(lambda: evaluate(predictor, data, spec.objective, job.metric))
        request_ms = _request(predictor, data)
    workers = job.training.fewest_workers
    epoch_s = row_s * (data.rows["train"] + data.rows["validation"])
    parts = [Part("start", started, "Ray, measured"), Part("data", data_s, "measured")]
    if spec.tuning.trials:
        parts.append(_search(spec.tuning, job.training.epochs, stages["search"], epoch_s, worker_s))
    parts += [
        Part("train", TRAIN_STARTS * worker_s + job.training.epochs * epoch_s / workers,
             f"{TRAIN_STARTS} starts of {worker_s:.1f} s, {job.training.epochs} epochs of "
             f"{epoch_s:.2f} s over {workers} workers"),
        Part("evaluate", evaluate_s, "measured, baselines and intervals included"),
    ]
    processes = max(_processes(stages.get("search")), _processes(stages["train"]) + TRAIN_STARTS)
    found = Estimate(parts, peak() + processes * worker_mb, request_ms)
    return found if price is None else replace(found, cost=price * found.seconds / 3600)


def _processes(stage: StagePlan | None) -> int:
    return stage.at_once if stage is not None else 0


def _search(
    tuning: TuningSpec, epochs: int, stage: StagePlan, epoch_s: float, worker_s: float
) -> Part:
    """Trials in rounds; ASHA lets one in `reduction_factor` go on after its grace."""
    grace = min(epochs, tuning.grace_epochs)
    each = grace + (epochs - grace) / tuning.reduction_factor if tuning.pruning in (
        "asha", "hyperband") else epochs
    rounds = math.ceil(tuning.trials / max(1, stage.at_once))
    seconds = worker_s + rounds * (each * epoch_s + GRACE_S)
    return Part("search", seconds, f"{rounds} rounds of {stage.at_once} trials, about {each:.1f} "
                f"epochs of {epoch_s:.2f} s each")


def _job(spec: Spec, base: Path, home: Home, data: Prepared) -> TrainJob:
    metric = spec.objective.metric or DEFAULT_METRIC[data.contract.task]
    if is_factory(spec.model.family):
        allow(home.path, spec.model.family, base, model=spec.name)
    return make_job(spec.model, spec.training, metric, data.transform.schema,
                    str(base) if own_code(spec) else None)


def _train(
    job: TrainJob, data: Prepared, folder: Path, home: Home
) -> tuple[float, Predictor]:
    """Seconds a row of an epoch (one worker, one thread), and the model of the few epochs."""
    import ray
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train, validation = (Shard([_head(ray.get(data.tensors(split)[0]))], job.training.seed)
                             for split in ("train", "validation"))
        seconds = []
        for epochs in (1, 1 + EPOCHS):
            short = job.with_training(epochs=epochs, patience=None, workers=1)
            fitted, took = _timed(partial(fit, short, train, validation,
                                          InlineSession(folder / str(epochs))))
            seconds.append(took)
    finally:
        torch.set_num_threads(threads)
    assert fitted.checkpoint is not None, "the session has a folder"
    rows = train.rows + validation.rows
    bundle = write_bundle(folder / "bundle", job, load_weights(fitted.checkpoint), data, {}, {})
    row_s = max(seconds[1] - seconds[0], 0.05 * seconds[1]) / EPOCHS / rows
    return row_s, Predictor(bundle, factories=allowed(home.path))


def _head(block: dict[str, Any]) -> dict[str, Any]:
    return {name: column[:ROWS] for name, column in block.items()}


def _request(predictor: Predictor, data: Prepared) -> float:
    """Milliseconds of a request with one row, after a first one: check, transform, forward."""
    table = data.table("test").slice(0, 1).select(data.contract.features)
    predictor.predict(table)
    _, seconds = _timed(lambda: predictor.predict(table))
    return 1000 * seconds


def _worker() -> tuple[float, float]:
    """Seconds that an actor with the training loop takes to start, and the MB that it holds."""
    import ray

    actor: Any = ray.remote(num_cpus=0)(_Probe)
    began = time.monotonic()
    probe = actor.remote()
    held = ray.get(probe.held.remote())
    seconds = time.monotonic() - began
    ray.kill(probe)
    return seconds, held


class _Probe:
    """A worker that imports what a trial does."""

    def held(self) -> float:
        import raymill.training.loop  # noqa: F401

        about = psutil.Process().memory_info()
        return float((about.rss - about.shared) / MB)


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    began = time.monotonic()
    return call(), time.monotonic() - began


@contextmanager
def _watched() -> Iterator[Callable[[], float]]:
    """The most memory that this process and its Ray held at once so far, in MB."""
    most, stop = [0.0], threading.Event()

    def look() -> None:
        while not stop.wait(POLL_S):
            most[0] = max(most[0], held_mb())

    watcher = threading.Thread(target=look, name="raymill-memory", daemon=True)
    watcher.start()
    try:
        yield lambda: most[0]
    finally:
        stop.set()
        watcher.join()


def held_mb() -> float:
    """What this process and the processes of its Ray hold, without what they share."""
    mark, total = os.environ.get(MARK), 0
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or (mark and process.environ().get(MARK) == mark):
                about = process.memory_info()
                total += about.rss - about.shared
        except (psutil.Error, OSError):
            continue
    return total / MB
