"""The plan of a search: how many trials run at once, or why not even one can."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raymill.errors import Problem, UsageError
from raymill.training.spec import TrainingSpec

from .spec import TuningSpec

Resources = Mapping[str, float]
_DRIVER_BYTES = 64 * 2**20  # Tune refuses a trial that holds nothing; its driver only waits


@dataclass(frozen=True)
class Plan:
    """Trials side by side, and what each of their workers holds.

    A trial of one worker runs in its own driver; one of several has a driver without a CPU beside
    its workers, so that drivers can never take the CPUs that their own workers wait for.
    """

    trials: int
    workers: int
    cpu: float
    gpu: float
    arithmetic: str

    @property
    def driver(self) -> dict[str, float]:
        """What Ray Tune reserves for a trial."""
        if self.workers > 1:
            return {"CPU": 0, "memory": _DRIVER_BYTES}
        return {"CPU": self.cpu, "GPU": self.gpu}


def plan(tuning: TuningSpec, training: TrainingSpec, nodes: Sequence[Resources]) -> Plan:
    """How the trials share the `nodes`; the resources of a cluster are the sum of its nodes'.

    Raises:
        UsageError: a trial would wait for ever, or its GPUs can't be had; says the arithmetic.
    """
    held = tuning.resources
    gpu = trial_gpu(tuning, training, _sum(nodes))
    _check_gpus(held.workers, gpu)
    fits = sum(_workers_on(node, held.cpu, gpu) for node in nodes) // held.workers
    total = _sum(nodes)
    takes = held.workers * held.cpu
    if held.data_cpu:
        fits = min(fits, math.floor((total.get("CPU", 0) - held.data_cpu) / takes + 1e-9))
    words = _arithmetic(tuning, gpu, nodes)
    if fits < 1:
        raise UsageError(Problem(
            rule="a trial must fit the cluster, or it would wait for ever", got=words,
            cure="Lower tuning.resources, or give the cluster more (cluster.cpus, cluster.gpus).",
        ))
    trials = min(fits, tuning.concurrency or fits, tuning.trials)
    return Plan(trials, held.workers, held.cpu, gpu, f"{words}: {trials} at once")


def trial_gpu(tuning: TuningSpec, training: TrainingSpec, cluster: Resources) -> float:
    """The GPUs, or the share of one, that each worker of a trial holds.

    Raises:
        UsageError: the training requires a GPU and the cluster has none, or it must not use one
            and `tuning.resources` asks for it.
    """
    has = cluster.get("GPU", 0) > 0
    if training.gpu == "require" and not has:
        raise UsageError("training.gpu is require, but the cluster has no GPU",
                         cure="Set training.gpu to auto, or attach a cluster with GPUs.")
    if training.gpu == "never" and tuning.resources.gpu:
        raise UsageError(f"training.gpu is never, but tuning.resources.gpu is "
                         f"{tuning.resources.gpu:g}",
                         cure="Leave out tuning.resources.gpu, or set training.gpu to auto.")
    if tuning.resources.gpu is not None:
        return tuning.resources.gpu
    return 1.0 if has and training.gpu != "never" else 0.0


def _check_gpus(workers: int, gpu: float) -> None:
    """NCCL wants a GPU a rank."""
    if workers > 1 and 0 < gpu < 1:
        raise UsageError(
            f"workers of a trial can't share a GPU: tuning.resources.workers is {workers} and gpu "
            f"is {gpu:g}", cure="Set tuning.resources.gpu to 1, or workers to 1.")


def _workers_on(node: Resources, cpu: float, gpu: float) -> int:
    """How many workers a machine holds; a share of a GPU lies on one GPU."""
    by_cpu = math.floor(node.get("CPU", 0) / cpu + 1e-9)
    if gpu == 0:
        return by_cpu
    gpus = node.get("GPU", 0)
    by_gpu = math.floor(gpus / gpu + 1e-9) if gpu >= 1 else int(gpus) * math.floor(1 / gpu + 1e-9)
    return min(by_cpu, by_gpu)


def _arithmetic(tuning: TuningSpec, gpu: float, nodes: Sequence[Resources]) -> str:
    """`a trial takes 2 workers x 1 CPU = 2 CPUs, 1 CPU is kept for data; 1 machine has 2 CPUs`."""
    held, total = tuning.resources, _sum(nodes)
    each = f"{_count(held.cpu, 'CPU')}" + (f" and {_count(gpu, 'GPU')}" if gpu else "")
    takes = f"a trial takes {each}"
    if held.workers > 1:
        takes = f"a trial takes {held.workers} workers x {each} = " + " and ".join(
            [_count(held.workers * held.cpu, "CPU")]
            + ([_count(held.workers * gpu, "GPU")] if gpu else []))
    kept = f", {_count(held.data_cpu, 'CPU')} kept for data" if held.data_cpu else ""
    has = _count(total.get("CPU", 0), "CPU") + (
        f" and {_count(total.get('GPU', 0), 'GPU')}" if gpu or total.get("GPU") else "")
    alive = [node for node in nodes if node.get("CPU")]
    if len(alive) < 2:
        return f"{takes}{kept}; the cluster has {has}"
    largest = max(node["CPU"] for node in alive)
    return (f"{takes}{kept}; the cluster's {len(alive)} machines have {has}, the largest "
            f"{_count(largest, 'CPU')}")


def _count(number: float, unit: str) -> str:
    return f"{number:g} {unit}{'' if number == 1 else 's'}"


def _sum(nodes: Sequence[Resources]) -> dict[str, float]:
    return {name: sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
