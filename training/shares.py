"""The CPUs that a worker of a training gets, and those that Ray counts for it."""

from __future__ import annotations

from collections.abc import Sequence

from .spec import TrainingSpec


def even_share(nodes: Sequence[float], workers: int) -> float:
    """The most CPUs that each of `workers` can have, each on one of the machines with `nodes`
    CPUs."""
    shares = {cpus / parts for cpus in nodes for parts in range(1, workers + 1) if cpus > 0}
    fitting = [share for share in shares
               if sum(int(cpus / share + 1e-9) for cpus in nodes) >= workers]
    return max(fitting, default=1.0)


def cpu_share(training: TrainingSpec, nodes: Sequence[float]) -> tuple[float, float]:
    """The CPUs of each worker, and those counted: less, or Ray Data's own tasks would wait for
    ever where no CPU is left, but for a range of workers whole ones, as Ray's elastic groups need.
    """
    share = training.cpus_per_worker or even_share(nodes, training.most_workers)
    if not isinstance(training.workers, int):
        return share, max(1, int(share))
    return share, training.cpus_per_worker or (share - 1 if share >= 2 else share / 2)
