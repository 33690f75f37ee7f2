"""What a training loop of the user's own gets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from raymill.errors import Problem, TrainingError

from .job import TrainJob
from .session import Session
from .shard import Batch, Shard

if TYPE_CHECKING:
    from .trainer import Trainer


@dataclass(frozen=True)
class LoopContext:
    """What a training loop of the user's own gets, as `loop(context)`.

    `context.batches()` gives this worker's batches of the current epoch on its device. Take the
    model's output under `context.autocast()`, any mean loss of a row, and give it to
    `context.step(loss)`; then call `context.finish_epoch(train_loss=...)`, which evaluates,
    checkpoints and reports, until `context.done`.

    The spec's `precision` is what `autocast` does; `clip_norm`, `schedule`, `warmup`
    and `ema` are what `step` does, `loss` and `class_weights` what `row_losses` does. A loop that goes without one of them
    goes without what the spec says there.
    """

    _trainer: Trainer

    @property
    def model(self) -> nn.Module:
        """The model, wrapped for data parallelism when there are several workers."""
        return self._trainer.wrapped

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The spec's optimizer; its state is in the checkpoints."""
        return self._trainer.optimizer

    @property
    def job(self) -> TrainJob:
        return self._trainer.job

    @property
    def session(self) -> Session:
        return self._trainer.session

    @property
    def train(self) -> Shard:
        return self._trainer.train

    @property
    def validation(self) -> Shard:
        return self._trainer.validation

    @property
    def done(self) -> bool:
        """Whether the epochs or the patience ran out."""
        return self._trainer.done

    def batches(self) -> Iterator[Batch]:
        """This worker's shuffled batches of the current epoch, the same number on every worker:
        one that runs out of rows before the others gets its first row again, which `step` gives no
        weight.

        Between two batches a checkpoint may be kept, so a step must be done before the next batch
        is asked for. A run that goes on in the middle of an epoch gets the batches left of it.
        """
        return self._trainer.own_batches()

    @property
    def share(self) -> float:
        """What the gradient of this worker's mean loss counts for in the mean over the workers: its
        rows of the batch, times the workers, over the rows of all; 0 for one that has run out.
        `step` heeds it; a loop that goes without `step` must multiply its loss by it."""
        return self._trainer.own_share

    def autocast(self) -> AbstractContextManager[Any]:
        """Where the model runs in the spec's `precision`."""
        return self._trainer.stepper.precision()

    def row_losses(self, output: Tensor, target: Tensor) -> Tensor:
        """The task's loss `[B]` of each row, times its class's weight."""
        return self._trainer.stepper.weighted(output, target)

    def step(self, loss: Tensor) -> None:
        """Backward from this worker's mean loss of the batch's rows, and one optimizer step, as the
        spec says. Rows weigh alike, however many each worker has.

        One step a batch: the schedule counts them.

        Raises:
            TrainingError: the loss is not one number.
        """
        if loss.numel() != 1:
            raise TrainingError(Problem(
                rule="context.step takes the mean loss of the batch's rows, one number",
                got=f"a tensor of shape {list(loss.shape)}", cure="Call its .mean() first."))
        self._trainer.own_step(loss)

    def evaluate(self) -> dict[str, float]:
        """The metrics on all validation rows."""
        return self._trainer.evaluate()

    def finish_epoch(self, **metrics: float) -> dict[str, float]:
        """End an epoch: evaluate, checkpoint, report; the epoch's metrics."""
        return self._trainer.finish_epoch(metrics)
