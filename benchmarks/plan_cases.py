"""Specs that can never be on the machines beside them, each with a piece of the arithmetic that is to
refuse it; and specs that can, each with the machines on which the figure `plan` completes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

GB = 2**30


def node(cpus: float = 4, gpus: float = 0, memory_gb: float = 16) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus, "memory": memory_gb * GB,
            "object_store_memory": 0.3 * memory_gb * GB}


BOX, TWO, GPU = [node()], [node(2), node(2)], [node(8, 2)]
IMPOSSIBLE: list[tuple[str, list[dict[str, float]], dict[str, Any], str]] = [
    ("a trial of more CPUs than there are", BOX, {"tuning": {"resources": {"cpu": 5}}}, "5 CPUs"),
    ("a trial larger than any machine", TWO, {"tuning": {"resources": {"cpu": 3}}}, "largest 2"),
    ("a trial of many workers", BOX, {"tuning": {"resources": {"workers": 5}}}, "= 5 CPUs"),
    ("workers of a trial that no machine holds", TWO,
     {"tuning": {"resources": {"workers": 2, "cpu": 3}}}, "= 6 CPUs"),
    ("a trial with a GPU that is not there", BOX, {"tuning": {"resources": {"gpu": 1}}}, "1 GPU"),
    ("a trial of more GPUs than there are", GPU, {"tuning": {"resources": {"workers": 4, "gpu": 1}}},
     "4 GPUs"),
    ("data CPUs that leave none", BOX, {"tuning": {"resources": {"data_cpu": 4}}}, "kept for data"),
    ("GPUs required of none", BOX, {"training": {"gpu": "require"}, "tuning": {"trials": 0}},
     "1 workers x 1 GPU"),
    ("more GPUs required than there are", GPU,
     {"training": {"gpu": "require", "workers": 3}, "tuning": {"trials": 0}}, "= 3 GPUs"),
    ("a search that requires a GPU of none", BOX, {"training": {"gpu": "require"}}, "no GPU"),
    ("workers of more CPUs than there are", BOX,
     {"training": {"workers": 3, "cpus_per_worker": 2}}, "= 6 CPUs"),
    ("workers that no machine holds", TWO,
     {"training": {"workers": 1, "cpus_per_worker": 3}}, "at most 2 each"),
    ("workers that fit in sum only", [node(3), node(3)],
     {"training": {"workers": 3, "cpus_per_worker": 2}}, "hold 2 such workers"),
    ("one worker on an empty cluster", [node(0)], {"training": {"cpus_per_worker": 1}}, "0 CPU"),
    ("fewer rows a batch than workers", BOX, {"training": {"workers": 4, "batch_size": 2}},
     "2 rows for 4 workers"),
    ("more replicas than CPUs", BOX,
     {"serving": {"replicas": {"min": 9, "max": 9}}}, "9 replicas x 0.5 CPUs = 4.5"),
    ("a replica larger than any machine", TWO, {"serving": {"cpus_per_replica": 3}}, "room for 0"),
    ("an object store that leaves no memory", [
        {**node(), "object_store_memory": 15.5 * GB}], {}, "of memory"),
    ("trials that fill the memory", [node(64, memory_gb=8)],
     {"tuning": {"trials": 64}}, "64 processes x 350 MB"),
    ("workers that fill the memory", [node(64, memory_gb=4)],
     {"training": {"workers": 32}, "tuning": {"trials": 0}}, "33 processes x 350 MB"),
]


@dataclass(frozen=True)
class Feasible:
    """A spec that is accepted and completed.

    `machines`: `box` has 2 CPUs, `gpus` 4 and two GPUs that Ray only counts; `raylets` are three
    machines of one CPU. `served`: the model is then served, with these replicas, and answers.
    """

    name: str
    machines: Literal["box", "gpus", "raylets"]
    rows: Literal["table", "tickets", "digits"] = "table"
    settings: dict[str, Any] = field(default_factory=dict)
    served: int = 0


def _net(**more: Any) -> dict[str, Any]:
    return {"model.family": "mlp", "model.width": 16, **more}


ALONE, SEARCH = {"tuning.trials": 0}, {"tuning.trials": 3}
FEASIBLE: list[Feasible] = [
    Feasible("trials of the default families", "box", settings=SEARCH),
    Feasible("trees alone", "box", settings={"model.family": "gbdt", **ALONE}),
    Feasible("trees on two workers", "box",
             settings={"model.family": "gbdt", "training.workers": 2, **ALONE}),
    Feasible("one trial after the other", "box", settings={
        "model.family": "linear", "tuning.concurrency": 1, **SEARCH}),
    Feasible("trials on half a CPU", "box", settings=_net(
        **{"tuning.trials": 4, "tuning.resources.cpu": 0.5})),
    Feasible("a trial of all CPUs", "box", settings=_net(
        **{"tuning.trials": 2, "tuning.resources.cpu": 2})),
    Feasible("trials of two workers", "box", settings=_net(
        **{"tuning.trials": 2, "tuning.resources.workers": 2})),
    Feasible("a CPU kept for data", "box", settings=_net(**SEARCH, **{
        "tuning.resources.data_cpu": 1})),
    Feasible("two workers", "box", settings=_net(**ALONE, **{"training.workers": 2})),
    Feasible("two workers, a part of the model each", "box", settings=_net(**ALONE, **{
        "training.workers": 2, "training.strategy": "fsdp"})),
    Feasible("four workers of half a CPU", "box", settings=_net(**ALONE, **{
        "training.workers": 4, "training.cpus_per_worker": 0.5})),
    Feasible("one or two workers", "box", settings=_net(**ALONE, **{
        "training.workers": "{min: 1, max: 2}"})),
    Feasible("a row a worker", "box", settings=_net(**ALONE, **{
        "training.workers": 2, "training.batch_size": 2, "training.epochs": 1})),
    Feasible("texts", "box", "tickets", {"model.family": "text", "model.width": 32, **ALONE}),
    Feasible("images", "box", "digits", {"model.family": "cnn", "model.channels": 8, **ALONE}),
    Feasible("two replicas of a CPU", "box", settings={
        "model.family": "linear", **ALONE, "serving.replicas": "{min: 2, max: 2}",
        "serving.cpus_per_replica": 1}, served=2),
    Feasible("trials on half a GPU", "gpus", settings=_net(
        **{"tuning.trials": 4, "tuning.resources.gpu": 0.5})),
    Feasible("trials of two workers with a GPU each", "gpus", settings=_net(
        **{"tuning.trials": 2, "tuning.resources.workers": 2, "tuning.resources.gpu": 1})),
    Feasible("trials and workers over three machines", "raylets", settings=_net(
        **SEARCH, **{"training.workers": 3})),
    Feasible("a trial of three machines", "raylets", settings=_net(
        **{"tuning.trials": 1, "tuning.resources.workers": 3})),
]
