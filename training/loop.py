"""Training: one entry, run inline, in a Tune trial or by Ray Train's workers."""

from __future__ import annotations

import torch

from raymill.errors import Problem, TrainingError
from raymill.events import Notify, ignore

from .context import LoopContext
from .factories import load_object
from .families.base import fitter
from .job import TrainJob
from .result import FitResult
from .session import Session, StopTraining
from .shard import Shard
from .trainer import Trainer


def fit(
    job: TrainJob, train: Shard, validation: Shard, session: Session, notify: Notify = ignore
) -> FitResult:
    """Train the job's model on this rank's rows until `epochs` or `patience` ends.

    Every rank calls this with its own shards. A resumed run goes on after its last whole epoch
    with the same weights, optimizer and random state.

    Raises:
        TrainingError: the loss or a weight is not finite, memory ran out, or there are fewer
            training rows than workers.
    """
    own = fitter(job.family)
    if own is not None:
        return own(job, train, validation, session, notify)
    trainer = Trainer(job, train, validation, session, notify)
    try:
        if job.training.loop is not None:
            load_object(job.training.loop, job.project)(LoopContext(trainer))
        else:
            trainer.run()
    except StopTraining:
        pass
    except torch.OutOfMemoryError as error:
        raise TrainingError(Problem(
            rule=f"a batch must fit in memory (training.batch_size is {job.training.batch_size})",
            got=str(error).split("\n")[0], cure="Lower training.batch_size.")) from error
    return trainer.result()
