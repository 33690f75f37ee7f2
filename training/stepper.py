"""One optimizer step: forward, loss, backward, clipping, learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .ema import Ema
from .finite import (
    LOSS,
    LossGuard,
    NotFiniteError,
    first_bad,
    first_bad_gradient,
    looks_late,
)
from .job import TrainJob
from .losses import RowLosses
from .precision import Precision
from .schedules import learning_rate
from .session import Session
from .shard import TARGET, Batch
from .strategy import Strategy, whole_tensor


def unmarked(part: str) -> None:
    """The `mark` of a run that nobody profiles."""


@dataclass
class Stepper:
    """Takes the steps of a run.

    Attributes:
        model: the module itself. strategy: how the workers hold it; steps go through it.
        losses: of rows. weights: of the classes `[K]`; None: all rows weigh the same.
        steps: those of the whole run, for the schedule.
        ema: takes in the weights after every step.
        norms: pass a row that is alone by their averages: it has no statistics.
        rate_share: what is left of the schedule's learning rate.
        mark: hears which part of the step begins.
    """

    job: TrainJob
    session: Session
    model: nn.Module
    strategy: Strategy
    optimizer: torch.optim.Optimizer
    precision: Precision
    losses: RowLosses
    weights: Tensor | None
    steps: int
    ema: Ema | None = None
    norms: Sequence[nn.Module] = ()
    rate_share: float = 1.0
    mark: Callable[[str], None] = unmarked
    guard: LossGuard = field(default_factory=LossGuard)

    def __post_init__(self) -> None:
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]

    def step(self, number: int, batch: Batch, rows: int, *, idle: bool = False) -> Tensor:
        """Step `number` of the run on this rank's part of a global batch of `rows` rows; the sum
        of its row losses.

        The loss is scaled by the rows of all ranks, so that uneven shards weigh each row alike. A
        rank that has run out of rows is `idle`: it takes part with rows of weight zero.
        """
        self.optimizer.zero_grad(set_to_none=True)
        scale = self.session.world_size / rows
        summed: list[Tensor] = []
        parts = list(self._parts(batch, idle))
        for place, (part, spare) in enumerate(parts, 1):
            with self.strategy.syncing(place == len(parts)):
                summed.append(self._backward(number, part, scale, spare))
        self._descend(number)
        return summed[0] if len(summed) == 1 else torch.stack(summed).sum()

    def _parts(self, batch: Batch, idle: bool) -> Iterator[tuple[Batch, bool]]:
        """The batch in as many parts as on every other rank, and which of them only take part."""
        wanted = self.job.training.accumulate
        if wanted == 1:
            yield batch, idle
            return
        rows = 0 if idle else len(batch[TARGET])
        for place in range(wanted):
            low, high = rows * place // wanted, rows * (place + 1) // wanted
            if low == high:
                yield {name: tensor[:1] for name, tensor in batch.items()}, True
            else:
                yield {name: tensor[low:high] for name, tensor in batch.items()}, False

    def _backward(self, number: int, batch: Batch, scale: float, spare: bool) -> Tensor:
        """Add the gradients of some rows; the sum of their losses."""
        module = self.strategy.module
        self.settle(len(batch[TARGET]), spare)
        self.mark("forward")
        with self.precision():
            output = module(batch)
        summed = self.weighted(output, batch[TARGET]).sum()
        self._look_at(number, summed.detach(), batch)
        self._add_gradients(summed, 0.0 if spare else scale)
        self.unsettle(len(batch[TARGET]), spare)
        return torch.zeros_like(summed) if spare else summed.detach()

    def settle(self, rows: int, spare: bool) -> None:
        """Have the model take `rows` rows that must not touch batch statistics (`spare`), or that
        are too few to have any."""
        if spare:
            self.strategy.module.eval()
        elif rows == 1:
            self._settled = [norm for norm in self.norms if norm.training]
            for norm in self._settled:
                norm.eval()

    def unsettle(self, rows: int, spare: bool) -> None:
        """Have it train again after `settle`."""
        if spare:
            self.strategy.module.train()
        elif rows == 1:
            for norm in self._settled:
                norm.train()

    def _look_at(self, number: int, loss: Tensor, batch: Batch) -> None:
        """The loss of `batch`, in step `number`, must be finite."""
        if (late := self.guard.late(number, loss)) is None:
            return
        if not self.strategy.whole or looks_late(loss):  # others must take part, or it is gone
            raise NotFiniteError(LOSS, late=late)
        raise first_bad(self.model, batch, self.job.schema)

    def _add_gradients(self, loss: Tensor, times: float) -> None:
        """Those of `times` the loss."""
        self.mark("backward")
        scaler = self.precision.scaler
        if scaler is not None:
            scaler.scale(loss * times).backward()
        else:
            (loss * times).backward()

    def weighted(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss `[B]` of each row, times its class's weight."""
        losses = self.losses(output, target)
        return losses if self.weights is None else losses * self.weights[target]

    def own_step(self, number: int, loss: Tensor, share: float, batch: Batch) -> None:
        """Step `number` from the mean loss of this rank's rows, whose gradient counts `share` times
        in the mean over ranks. `batch` is what the rows were given in."""
        self.optimizer.zero_grad(set_to_none=True)
        self._look_at(number, loss.detach(), batch)
        self._add_gradients(loss, share)
        self._descend(number)

    def _descend(self, number: int) -> None:
        """An optimizer step along the gradients, at the learning rate of step `number`."""
        self.mark("optimizer")
        training, scaler = self.job.training, self.precision.scaler
        if training.clip_norm is not None:
            if scaler is not None:
                scaler.unscale_(self.optimizer)
            self._clip(training.clip_norm)
        rate = learning_rate(training, number, self.steps) * self.rate_share
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if scaler is not None:
            scaler.step(self.optimizer)  # left out where gradients overflowed
            scaler.update()
        else:
            self.optimizer.step()
        if self.ema is not None:
            self.ema.update()
        self.mark("other")

    def _clip(self, limit: float) -> None:
        """Shorten the gradients to a norm of `limit`, where they are longer.

        On the CPU the norm is looked at: it is there, and most steps have nothing to shorten.
        """
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = whole_tensor(nn.utils.get_total_norm(gradients))
        if norm.is_cuda:
            nn.utils.clip_grads_with_norm_(self._parameters, limit, norm)
            return
        length = norm.item()
        if not math.isfinite(length):
            raise first_bad_gradient(self.model)
        if length > limit:
            torch._foreach_mul_(gradients, limit / length)
