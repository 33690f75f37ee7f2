"""The plan of a run: what each stage takes, what the cluster has, and what could never be."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from raymill.cluster.spec import ClusterSpec
from raymill.errors import Problem, UsageError
from raymill.serving.spec import ServingSpec
from raymill.spec import Spec
from raymill.training.gpus import idle, workers_on
from raymill.training.shares import cpu_share
from raymill.training.spec import TrainingSpec
from raymill.tuning.capacity import Resources
from raymill.tuning.capacity import plan as plan_search

PROCESS_MB = 350  # what a worker of Ray's with torch in it holds before any row is there
OBJECT_STORE = 0.3  # the share of memory that Ray takes for objects
MB = 2**20


@dataclass(frozen=True)
class StagePlan:
    """One stage: `at_once` processes with `cpus` and `gpus` each, of `total` in all."""

    name: str
    at_once: int
    total: int
    cpus: float
    gpus: float
    memory_mb: float
    note: str = ""

    @property
    def waits(self) -> int:
        return max(0, self.total - self.at_once)


@dataclass(frozen=True)
class Plan:
    """The stages, the machines, and every reason why it can't be (none: it can)."""

    nodes: list[dict[str, float]]
    stages: list[StagePlan]
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def require(self) -> None:
        """Refuse what can't be.

        Raises:
            UsageError: with the arithmetic of each reason.
        """
        if self.problems:
            raise UsageError(self.problems)

    def to_dict(self) -> dict[str, Any]:
        return {
            "nodes": self.nodes,
            "stages": [{**asdict(stage), "waits": stage.waits} for stage in self.stages],
            "problems": [problem.to_dict() for problem in self.problems],
            "warnings": self.warnings,
        }


def make(spec: Spec, nodes: Sequence[Resources], data_mb: float | None = None,
         only: str | None = None) -> Plan:
    """The plan of `spec` on `nodes` (each with CPU, GPU, and memory and object_store_memory in
    bytes); `data_mb` is the size of the data's files. `only` is the one stage that is to come
    after the data (search, train, serve)."""
    problems: list[Problem] = []
    stages = [_data(nodes, data_mb)]
    if spec.tuning.trials and only in (None, "search"):
        stages += _search(spec, nodes, problems)
    if only in (None, "train"):
        stages.append(_train(spec.training, nodes, problems))
    if only in (None, "serve"):
        stages.append(_serve(spec.serving, nodes, problems))
    _memory(stages, nodes, problems)
    return Plan([dict(node) for node in nodes], stages, problems, _warnings(nodes, data_mb))


def local_nodes(spec: ClusterSpec) -> list[dict[str, float]]:
    """This machine, as a local Ray would count it."""
    memory = psutil.virtual_memory().total
    store = spec.object_store_mb * MB if spec.object_store_mb else memory * OBJECT_STORE
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*"))) if spec.gpus is None else spec.gpus
    return [{"CPU": float(spec.cpus or os.cpu_count() or 1), "GPU": float(gpus),
             "memory": float(memory), "object_store_memory": float(store)}]


def declared_nodes(spec: ClusterSpec) -> list[dict[str, float]]:
    """The workers of `cluster.nodes`, each group at its most."""
    return [
        {"CPU": float(group.cpus), "GPU": float(group.gpus), "memory": group.memory_gb * 1024 * MB,
         "object_store_memory": group.memory_gb * 1024 * MB * OBJECT_STORE}
        for group in spec.nodes.workers for _ in range(group.max)
    ]


def cluster_nodes() -> list[dict[str, float]]:
    """The live machines of the Ray that this process is connected to."""
    import ray

    kinds = ("CPU", "GPU", "memory", "object_store_memory")
    return [{kind: float(node["Resources"].get(kind, 0)) for kind in kinds}
            for node in ray.nodes() if node["Alive"]]


def _data(nodes: Sequence[Resources], data_mb: float | None) -> StagePlan:
    tasks = max(1, math.floor(_sum(nodes, "CPU")))
    note = f"{data_mb:,.0f} MB of files" if data_mb is not None else "files of unknown size"
    return StagePlan("data", tasks, tasks, 1, 0, tasks * PROCESS_MB, note)


def _search(
    spec: Spec, nodes: Sequence[Resources], problems: list[Problem]
) -> list[StagePlan]:
    try:
        plan = plan_search(spec.tuning, spec.training, nodes)
    except UsageError as error:
        problems += error.problems
        return []
    return [StagePlan("search", plan.trials, spec.tuning.trials, plan.cpu * plan.workers,
                      plan.gpu * plan.workers, plan.trials * plan.workers * PROCESS_MB,
                      plan.arithmetic)]


def _train(
    training: TrainingSpec, nodes: Sequence[Resources], problems: list[Problem]
) -> StagePlan:
    workers, cpus, gpus = training.fewest_workers, _sum(nodes, "CPU"), _sum(nodes, "GPU")
    on = workers_on(gpus, training)
    if training.gpu == "require" and on is None:
        problems.append(Problem(
            rule="training.gpu: require needs a GPU a worker",
            got=f"{workers} workers x 1 GPU = {workers} GPUs, the cluster has {gpus:g}",
            cure="Lower training.workers, or set training.gpu to auto."))
    computing = training if on is None else training.model_copy(update={"workers": on})
    _, counted = cpu_share(computing, [node.get("CPU", 0) for node in nodes])
    ranged = not isinstance(training.workers, int)
    if training.cpus_per_worker is not None or ranged:
        fits = sum(math.floor(node.get("CPU", 0) / counted + 1e-9) for node in nodes)
        if fits < workers:
            largest = max((node.get("CPU", 0) for node in nodes), default=0)
            whole = " (a range of workers takes whole CPUs)" if ranged else ""
            problems.append(Problem(
                rule="the workers of the training must fit the cluster, or they wait for ever",
                got=f"{workers} workers x {counted:g} CPUs{whole} = {workers * counted:g} CPUs, but "
                    f"the machines hold {fits} such workers ({cpus:g} CPUs, at most {largest:g} "
                    "each)",
                cure="Lower training.workers.min or training.cpus_per_worker." if ranged else
                     "Lower training.workers or training.cpus_per_worker."))
    if training.batch_size != "auto" and training.batch_size < workers:
        problems.append(Problem(
            rule="training.batch_size is shared out over the workers, at least a row each",
            got=f"{training.batch_size} rows for {workers} workers",
            cure="Raise training.batch_size, or lower training.workers."))
    return StagePlan("train", workers, workers, training.cpus_per_worker or cpus / workers,
                     0 if on is None else 1, (workers + 1) * PROCESS_MB, idle(gpus, training))


def _serve(
    serving: ServingSpec, nodes: Sequence[Resources], problems: list[Problem]
) -> StagePlan:
    """The endpoint's replicas, were they to run on these machines."""
    cpu, gpu, least = serving.cpus_per_replica, serving.gpus_per_replica, serving.replicas.min
    most = sum(min(math.floor(node.get("CPU", 0) / cpu + 1e-9),
                   math.floor(node.get("GPU", 0) / gpu + 1e-9) if gpu else sys.maxsize)
               for node in nodes)
    if most < least:
        gpus = f" and {least * gpu:g} GPUs" if gpu else ""
        problems.append(Problem(
            rule="serving.replicas.min must fit the machines",
            got=f"{least} replicas x {cpu:g} CPUs = {least * cpu:g} CPUs{gpus}, there is room for "
                f"{most}",
            cure="Lower serving.replicas.min, cpus_per_replica or gpus_per_replica."))
    return StagePlan("serve", least, max(least, min(serving.replicas.max, most)), cpu, gpu,
                     least * PROCESS_MB)


def _memory(
    stages: Sequence[StagePlan], nodes: Sequence[Resources], problems: list[Problem]
) -> None:
    """Stages follow each other, so each alone must fit what the machines have."""
    total = _sum(nodes, "memory") / MB
    store = _sum(nodes, "object_store_memory") / MB
    if total and store > 0.9 * total:
        problems.append(Problem(
            rule="cluster.object_store_mb must leave memory to the processes",
            got=f"{store:,.0f} MB of the {total:,.0f} MB of memory", cure="Lower it."))
    for stage in stages:
        if total and stage.name in ("search", "train") and stage.memory_mb > total:
            processes = round(stage.memory_mb / PROCESS_MB)
            problems.append(Problem(
                rule=f"the processes of {stage.name} must fit the cluster's memory",
                got=f"{processes} processes x {PROCESS_MB} MB = {stage.memory_mb:,.0f} MB, it has "
                    f"{total:,.0f} MB",
                cure="Lower training.workers." if stage.name == "train" else
                     "Set tuning.concurrency, or raise tuning.resources.cpu."))


def _warnings(nodes: Sequence[Resources], data_mb: float | None) -> list[str]:
    store = _sum(nodes, "object_store_memory") / MB
    if data_mb is not None and store and data_mb > store:
        text = (f"{data_mb:,.0f} MB of data are more than the {store:,.0f} MB of the object store: "
                "blocks will be written to disk and read again")
        return [text]
    return []


def _sum(nodes: Sequence[Resources], kind: str) -> float:
    return float(sum(node.get(kind, 0) for node in nodes))
