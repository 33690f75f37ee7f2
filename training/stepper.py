"""One optimizer step: forward, loss, backward, clipping, learning rate."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .finite import LossGuard, NotFiniteError, first_bad, first_bad_gradient, is_finite
from .job import TrainJob
from .losses import row_losses
from .precision import Precision
from .schedules import learning_rate
from .session import Session
from .shard import TARGET, Batch


@dataclass
class Stepper:
    """Takes the steps of a run.

    Attributes:
        model: the module itself. wrapped: the same, for data parallelism.
        weights: of the classes `[K]`; None: all rows weigh the same.
        steps: those of the whole run, for the schedule.
    """

    job: TrainJob
    session: Session
    model: nn.Module
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    precision: Precision
    weights: Tensor | None
    steps: int
    guard: LossGuard = field(default_factory=LossGuard)

    def step(self, number: int, batch: Batch, rows: int, *, idle: bool = False) -> Tensor:
        """Step `number` of the run on this rank's part of a global batch of `rows` rows; the sum
        of its row losses.

        The loss is scaled by the rows of all ranks, so that uneven shards weigh each row alike. A
        rank that has run out of rows is `idle`: it takes part with rows of weight zero.
        """
        if idle:
            self.wrapped.eval()  # the row must not touch batch statistics
        self.optimizer.zero_grad(set_to_none=True)
        with self.precision():
            output = self.wrapped(batch)
        summed = self.weighted(output, batch[TARGET]).sum() * (0.0 if idle else 1.0)
        if (late := self.guard.late(summed)) is not None:
            raise (NotFiniteError("the loss", late=late) if late else
                   first_bad(self.model, batch, self.job.schema))
        self.descend(summed * (self.session.world_size / rows), number)
        if idle:
            self.wrapped.train()
        return summed.detach().double()

    def weighted(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss `[B]` of each row, times its class's weight."""
        losses = row_losses(output, target, self.job.schema)
        return losses if self.weights is None else losses * self.weights[target]

    def descend(self, loss: Tensor, number: int) -> None:
        """Backward, and an optimizer step at the learning rate of step `number`."""
        training = self.job.training
        loss.backward()
        if training.clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), training.clip_norm)
            if norm.device.type == "cpu" and not is_finite(norm):
                raise first_bad_gradient(self.model)
        rate = learning_rate(training, number, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
