"""Whether a training computes on GPUs: one answer for the plan and for the run. Free of torch."""

from __future__ import annotations

from .spec import TrainingSpec, Workers


def workers_on(gpus: float, training: TrainingSpec) -> int | Workers | None:
    """The workers of `training` with a GPU each, where there are `gpus`; None: they compute on CPUs.

    A range ends at as many as there are GPUs.
    """
    workers = training.workers
    if training.gpu == "never" or gpus < max(1, training.fewest_workers):
        return None
    if isinstance(workers, int):
        return workers
    return Workers(min=workers.min, max=min(workers.max, int(gpus)))


def idle(gpus: float, training: TrainingSpec) -> str:
    """In words, which of the `gpus` a training leaves unused though it might use them, and why."""
    on = workers_on(gpus, training)
    if training.gpu == "never" or gpus < 1:
        return ""
    if on is None:
        return (f"the training computes on CPUs: a GPU a worker would take "
                f"{training.fewest_workers}, and the cluster has {gpus:g}")
    most = on if isinstance(on, int) else on.max
    if most < training.most_workers:
        return f"at most {most} of {training.most_workers} workers: the cluster has {gpus:g} GPUs"
    left = int(gpus) - most
    return f"{left} of {gpus:g} GPUs stay idle: raise training.workers to use them" if left else ""
