"""What went wrong with workers, in words that help."""

from __future__ import annotations

import ray
import ray.train
import torch

from raymill.errors import Problem, TrainingError

from .job import TrainJob

GOES_ON = "The same command goes on from the last checkpoint."


def last_line(error: BaseException) -> str:
    """The last line of an error's text, or its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def lost(error: ray.train.TrainingFailedError, job: TrainJob) -> TrainingError:
    """Workers were lost more often than `training.max_failures` allows."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    for rank, cause in failures.items():
        if isinstance(cause, ray.exceptions.OutOfMemoryError) or "memory pressure" in str(cause):
            return out_of_memory(job, f"Ray's memory monitor ended rank {rank}, because its "
                                      "machine was nearly out of memory")
    causes = [f"rank {rank}: {last_line(cause)}" for rank, cause in failures.items()]
    return TrainingError(Problem(
        rule=f"training may lose its workers {job.training.max_failures} times",
        got="; ".join(causes[:4]) or last_line(error), cure=GOES_ON))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def out_of_memory(job: TrainJob, got: str, rows: int | None = None) -> TrainingError:
    """Memory ran out. `rows` is what a worker's batch had, where it is known."""
    training = job.training
    each = f", {rows} rows on each of {training.most_workers} workers" if rows else ""
    half = f" (to {rows * training.most_workers // 2})" if rows and rows > 1 else ""
    return TrainingError(Problem(
        rule=f"a step must fit in memory (training.batch_size is {training.batch_size}{each})",
        got=got,
        cure=f"Lower training.batch_size{half} or the model's size, or raise training.workers on "
             f"more machines. {GOES_ON}"))
