"""How many trials fit the cluster at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from raymill.errors import UsageError
from raymill.training.spec import TrainingSpec

from .spec import TuningSpec

Resources = Mapping[str, float]


def trial_gpu(tuning: TuningSpec, training: TrainingSpec, cluster: Resources) -> float:
    """The GPUs, or the share of one, that a trial holds.

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


def side_by_side(tuning: TuningSpec, gpu: float, nodes: Sequence[Resources]) -> int:
    """How many trials run at once: what the nodes hold, and no more than the spec allows.

    Raises:
        UsageError: not even one trial fits a node.
    """
    cpu = tuning.resources.cpu
    fits = sum(_fits(node, cpu, gpu) for node in nodes)
    if fits == 0:
        largest = max((node.get("CPU", 0) for node in nodes), default=0)
        raise UsageError(
            f"a trial needs {cpu:g} CPUs and {gpu:g} GPUs on one machine, but no machine has them "
            f"(the largest has {largest:g} CPUs)",
            cure="Lower tuning.resources.",
        )
    return min(fits, tuning.concurrency or fits, tuning.trials)


def _fits(node: Resources, cpu: float, gpu: float) -> int:
    by_cpu = math.floor(node.get("CPU", 0) / cpu + 1e-9)
    return min(by_cpu, math.floor(node.get("GPU", 0) / gpu + 1e-9)) if gpu > 0 else by_cpu
