"""A run's state and its epochs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raymill.errors import Problem, TrainingError
from raymill.events import Event, Notify
from raymill.failpoints import failpoint

from .balance import class_weights
from .batching import batch_rows
from .cadence import Cadence, Order
from .checkpoint import Progress, at
from .evaluating import evaluate
from .feed import Feed
from .finite import NotFiniteError, stopped
from .job import TrainJob
from .keeper import Keeper, Stateful
from .model import build_model
from .optim import make_optimizer
from .parallel import check_equal, from_rank_zero, gather_counts, sum_over_ranks
from .precision import make_precision
from .randomness import reseed
from .result import FitResult
from .session import Interrupted, Session
from .shard import TARGET, Batch, Shard
from .shelf import setting_of
from .stepper import Stepper


class Trainer:
    """One run: its model, how far it is, and its epochs."""

    def __init__(
        self, job: TrainJob, train: Shard, validation: Shard, session: Session, notify: Notify
    ) -> None:
        self.job, self.session, self.notify = job, session, notify
        self.train, self.validation = train, validation
        device, world = session.device, session.world_size
        self.counts = gather_counts(train.rows, world, device)
        self.validation_counts = gather_counts(validation.rows, world, device)
        if min(self.counts) == 0 or sum(self.validation_counts) == 0:
            raise TrainingError(Problem(
                rule="every worker needs a training row, and there must be validation rows",
                got=f"{sum(self.counts)} training and {sum(self.validation_counts)} validation "
                    f"rows for {world} workers", cure="Lower training.workers."))
        self.model = build_model(job).to(device)
        self.optimizer = make_optimizer(self.model, job.training)
        self.feed = Feed(train, session, batch_rows(job.training, sum(self.counts), job.schema))
        self.progress = Progress(identity=job.identity(sum(self.counts)),
                                 setting=setting_of(device, world))
        self.total = torch.zeros((), dtype=torch.float64, device=device)
        self.best_weights: dict[str, Tensor] = {}
        parts: dict[str, Stateful] = {}
        self.keeper = Keeper(self, parts)
        self.keeper.take_up()
        self.cadence = Cadence(job.training.checkpoint_every, session)
        self.wrapped = self._wrap()
        self.stepper = Stepper(
            job, session, self.model, self.wrapped, self.optimizer,
            make_precision(job.training, device), self._class_weights(),
            self.feed.steps * job.training.epochs)

    def _wrap(self) -> nn.Module:
        device, world = self.session.device, self.session.world_size
        if world == 1:
            return self.model
        check_equal(self.model, world, device)
        return DistributedDataParallel(
            self.model, device_ids=[device.index] if device.type == "cuda" else None)

    def _class_weights(self) -> Tensor | None:
        schema, spec = self.job.schema, self.job.training.class_weights
        if spec == "none":
            return None
        counts = torch.zeros(len(schema.classes or ()) or 1, dtype=torch.float64)
        if schema.classes is not None:
            counts += torch.bincount(self.train.tensors[TARGET], minlength=len(schema.classes))
        total = sum_over_ranks(counts.to(self.session.device), self.session.world_size).cpu()
        weights = class_weights(spec, total, schema)
        return weights.to(self.session.device) if weights is not None else None

    @property
    def done(self) -> bool:
        training = self.job.training
        stale = training.patience is not None and self.progress.stale >= training.patience
        return self.progress.epoch >= training.epochs or stale

    def run(self) -> None:
        """Epochs until the last, or until `patience` of them brought nothing better."""
        while not self.done:
            began = time.perf_counter()
            loss = self.train_epoch()
            took = time.perf_counter() - began
            self.finish_epoch({"train_loss": loss, "rows_per_s": sum(self.counts) / took})

    def to_device(self, batch: Batch) -> Batch:
        device = self.session.device
        if device.type == "cpu":
            return batch
        return {name: t.pin_memory().to(device, non_blocking=True) for name, t in batch.items()}

    def batches(self) -> Iterator[Batch | None]:
        """This rank's batches of what is left of the epoch, not yet on its device; None where
        others still have rows. A step must be done before the next batch is asked for."""
        epoch, feed = self.progress.epoch, self.feed
        fresh = not feed.resumed
        steps = feed.begin(epoch)
        if fresh:  # else the random state is the checkpoint's
            reseed(self.job.training.seed, self.session.rank, epoch, feed.number)
        if feed.position.steps == 0:
            self.total.zero_()
        self.wrapped.train()
        self.cadence.restart()
        batches = feed.batches(epoch)
        for _ in range(steps):
            yield next(batches, None)
            feed.stretch.steps += 1
            self._between_steps()

    def _between_steps(self) -> None:
        """Keep a checkpoint when one is due, and stop when that is asked for."""
        self.keeper.check()
        order = self.cadence.step()
        if order != Order.GO_ON:
            self.keeper.save()
        if order == Order.STOP:
            raise Interrupted

    def train_epoch(self) -> float:
        """One pass over all ranks' rows; the mean loss of a row."""
        for batch in self.batches():
            self.total += self._step(batch)
        return float(sum_over_ranks(self.total.clone(), self.session.world_size)) / sum(self.counts)

    def _step(self, batch: Batch | None) -> Tensor:
        """The next step of the epoch; the sum of this rank's row losses."""
        given = self.to_device(self.first_row() if batch is None else batch)
        try:
            loss = self.stepper.step(self.progress.step, given, self.feed.rows_now(),
                                     idle=batch is None)
        except NotFiniteError as error:
            raise self._not_finite(error) from None
        self.progress.step += 1
        return loss

    def first_row(self) -> Batch:
        """What a rank takes that has run out of rows before the others."""
        return {name: t[:1] for name, t in self.train.tensors.items()}

    def own_step(self, loss: Tensor) -> None:
        """A step of a loop of the user's own, from this rank's mean loss."""
        self.optimizer.zero_grad(set_to_none=True)
        try:
            self.stepper.descend(loss, self.progress.step)
        except NotFiniteError as error:
            raise self._not_finite(error) from None
        self.progress.step += 1

    def _not_finite(self, error: NotFiniteError) -> TrainingError:
        epoch, feed = self.progress.epoch, self.feed
        step = feed.position.steps - error.late
        return stopped(error, epoch, step, feed.chosen(epoch, error.late), self.session.rank)

    def evaluate(self) -> dict[str, float]:
        """`val_loss` and every metric of the task on all ranks' validation rows."""
        return evaluate(self.model, self.validation, self.validation_counts, self.job.schema,
                        self.stepper.precision, self.alive)

    def alive(self) -> None:
        """Tell that this rank got on, outside of a step."""
        self.session.alive(self.cadence.typical)

    def finish_epoch(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Count the epoch, evaluate, keep a checkpoint, report."""
        progress = self.progress
        self.feed.finish()
        progress.epoch += 1
        rate = self.optimizer.param_groups[0]["lr"]
        row = {"epoch": progress.epoch, **metrics, "lr": rate, **self.evaluate()}
        value = row[f"val_{self.job.metric}"]
        sign = 1 if self.job.maximize else -1
        if not np.isfinite(value):
            raise TrainingError(Problem(
                rule=f"the validation {self.job.metric} must be a number", got=str(value),
                cure="Are there rows of every class in the validation split?"))
        progress.history.append(row)
        if progress.best is None or sign * value > sign * progress.best:
            progress.best, progress.best_epoch, progress.stale = value, progress.epoch, 0
            progress.best_checkpoint = self.keeper.number
            if self.session.folder is None:
                self.best_weights = {n: t.detach().cpu().clone()
                                     for n, t in self.model.state_dict().items()}
        else:
            progress.stale += 1
        self.keeper.save()
        if self.session.rank == 0:
            self.notify(Event("epoch", {
                "trial": None, "epoch": progress.epoch, "epochs": self.job.training.epochs,
                "metrics": row, "rows_per_s": row.get("rows_per_s")}))
        self.session.report(row)
        failpoint("train.after_report")
        if from_rank_zero([int(self.session.stopping)], self.session.world_size,
                          self.session.device) == [1]:
            raise Interrupted
        return row

    def result(self) -> FitResult:
        """The best epoch's.

        Raises:
            TrainingError: no epoch was finished.
        """
        progress, folder = self.progress, self.session.folder
        if progress.best is None:
            raise TrainingError("training must finish an epoch",
                                cure="A loop of one's own must call context.finish_epoch().")
        best = progress.history[progress.best_epoch - 1]
        return FitResult(
            best=best, best_epoch=progress.best_epoch, epochs=progress.epoch,
            history=progress.history, weights=self.best_weights,
            checkpoint=at(folder, progress.best_checkpoint) if folder else None,
            resumes=progress.resumes,
        )
