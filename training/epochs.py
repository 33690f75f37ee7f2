"""What is taken down at the end of an epoch, however the model is fitted."""

from __future__ import annotations

import math

from raymill.errors import Problem, TrainingError
from raymill.events import Event, Notify

from .checkpoint import Progress
from .job import TrainJob
from .parallel import gather_counts
from .session import Session
from .shard import Shard


def count_rows(train: Shard, validation: Shard, session: Session) -> tuple[list[int], list[int]]:
    """Every rank's training and validation rows.

    Raises:
        TrainingError: a rank has no training row, or there are no validation rows.
    """
    counts, held_out = (gather_counts(shard.rows, session.world_size, session.device)
                        for shard in (train, validation))
    if min(counts) == 0 or sum(held_out) == 0:
        raise TrainingError(Problem(
            rule="every worker needs a training row, and there must be validation rows",
            got=f"{sum(counts)} training and {sum(held_out)} validation rows for "
                f"{session.world_size} workers", cure="Lower training.workers."))
    return counts, held_out


def take_down(progress: Progress, job: TrainJob, row: dict[str, float]) -> bool:
    """Add an epoch's metrics to `progress`; whether the epoch is the best so far.

    Raises:
        TrainingError: the metric that decides is no number.
    """
    value = row[f"val_{job.metric}"]
    if not math.isfinite(value):
        raise TrainingError(Problem(
            rule=f"the validation {job.metric} must be a number", got=str(value),
            cure="Are there rows of every class in the validation split?"))
    progress.history.append(row)
    sign = 1 if job.maximize else -1
    if progress.best is None or sign * value > sign * progress.best:
        progress.best, progress.best_epoch, progress.stale = value, progress.epoch, 0
        return True
    progress.stale += 1
    return False


def spent(progress: Progress, job: TrainJob) -> bool:
    """Whether the epochs or the patience ran out."""
    patience = job.training.patience
    stale = patience is not None and progress.stale >= patience
    return progress.epoch >= job.training.epochs or stale


def tell_epoch(notify: Notify, job: TrainJob, row: dict[str, float]) -> None:
    notify(Event("epoch", {
        "trial": None, "epoch": int(row["epoch"]), "epochs": job.training.epochs, "metrics": row,
        "rows_per_s": row.get("rows_per_s")}))
