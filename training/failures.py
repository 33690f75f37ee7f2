"""What went wrong with workers, in words that help."""

from __future__ import annotations

import traceback

import ray
import ray.train
import torch
import torch.distributed as dist

from raymill.errors import Problem, TrainingError

from .families.base import FITTERS
from .job import TrainJob

# Of errors that torch has no class for: a peer that is gone, or a device that fails.
_OUTSIDE = ("gloo", "NCCL", "nccl", "onnection", "ocket", "imed out", "imeout", "CUDA error",
            "process group", "cuDNN error", "killed by signal")
_UNUSED = "parameters that were not used in producing loss"  # as DDP says it
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


def may_pass(error: BaseException) -> bool:
    """Whether the same step may go well when it is tried again: a lost peer, the network, a disk, a
    device. Any other error is one of the code's own, which only comes again."""
    if isinstance(error, OSError | EOFError | ray.exceptions.RayError | dist.DistError
                  | torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _OUTSIDE)


def raised(error: BaseException, rank: int) -> TrainingError:
    """An error of the code that trains: the project's own model or loop, or raymill's."""
    if _UNUSED in str(error):
        return TrainingError(Problem(
            rule="with several workers every parameter must get a gradient in each step",
            got=f"some that got none on rank {rank}",
            cure="raymill check SPEC --train names them. Use them in forward, or do not make them; "
                 "those that stay as they are take requires_grad_(False)."))
    return TrainingError(Problem(
        rule="the code that trains must not raise",
        got=f"{type(error).__name__}: {last_line(error)} on rank {rank}", where=_place(error),
        cure="raymill check SPEC --train tries a model or loop of your own on a few rows."))


def _place(error: BaseException) -> str:
    """`file:line, in function` of the innermost frame outside of installed packages."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f"{own[-1].filename}:{own[-1].lineno}, in {own[-1].name}" if own else ""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def out_of_memory(job: TrainJob, got: str, rows: int | None = None) -> TrainingError:
    """Memory ran out. `rows` is what a worker's batch had; None: no batch was taken yet."""
    training = job.training
    if job.family in FITTERS:
        return TrainingError(Problem(
            rule="the rows and their bins must fit in memory, a share on each worker", got=got,
            cure=f"Lower model.bins, or raise training.workers on more machines. {GOES_ON}"))
    each = f", {rows} rows on each of {training.most_workers} workers" if rows else ""
    half = f" (to {rows * training.most_workers // 2})" if rows and rows > 1 else ""
    return TrainingError(Problem(
        rule=f"a step must fit in memory (training.batch_size is {training.batch_size}{each})",
        got=got,
        cure=f"Lower training.batch_size{half} or the model's size, or raise training.workers on "
             f"more machines. {GOES_ON}"))
