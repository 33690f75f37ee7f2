"""Training: one entry, run inline, in a Tune trial or by Ray Train's workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from raymill.errors import TrainingError
from raymill.events import Notify, ignore

from .context import LoopContext
from .factories import load_object
from .failures import is_out_of_memory, last_line, out_of_memory
from .families.base import fitter
from .job import TrainJob
from .result import FitResult
from .session import Interrupted, Session, StopTraining
from .shard import Shard
from .trainer import Trainer


def fit(
    job: TrainJob, train: Shard, validation: Shard, session: Session, notify: Notify = ignore
) -> FitResult:
    """Train the job's model on this rank's rows until `epochs` or `patience` ends.

    Every rank calls this with its own shards. A run whose session has a folder with checkpoints
    goes on from the newest good one: on the CPU and as many workers as before with bitwise the
    same weights as if never interrupted, else with every row once an epoch.

    Raises:
        TrainingError: the loss or a weight is not finite, memory or the disk ran out, or there
            are fewer training rows than workers.
        UsageError: the folder's checkpoints are those of another job.
        Interrupted: the session was asked to stop; a checkpoint of the last step is kept.
    """
    own = fitter(job.family)
    if own is not None:
        with _explained(job):
            return own(job, train, validation, session, notify)
    with _explained(job):
        trainer = Trainer(job, train, validation, session, notify)
    try:
        with _explained(job, trainer.feed.most):
            _run(trainer, job)
        trainer.keeper.close()
    except Interrupted:  # the checkpoint of the last step is for the run that goes on
        with suppress(TrainingError):
            trainer.keeper.close()
        raise
    except BaseException:
        trainer.keeper.abandon()
        raise
    return trainer.result()


@contextmanager
def _explained(job: TrainJob, rows: int | None = None) -> Iterator[None]:
    """Say what to do where memory runs out; `rows` is what a worker's batch has."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(job, last_line(error), rows) from error


def _run(trainer: Trainer, job: TrainJob) -> None:
    try:
        if job.training.loop is not None:
            load_object(job.training.loop, job.project)(LoopContext(trainer))
        else:
            trainer.run()
    except StopTraining:
        pass
