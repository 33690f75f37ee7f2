"""A run's state and its epochs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from raymill.errors import Problem, TrainingError
from raymill.events import Event, Notify
from raymill.failpoints import failpoint

from .balance import Balance, make_balance
from .batching import batch_rows, largest_fitting, most_rows, rows_at_once, step_attempt
from .cadence import Cadence, Order
from .checkpoint import Progress, at
from .compiling import compile_or_warn
from .ema import Ema
from .evaluating import Evaluator
from .feed import Feed
from .finite import LOSS, NotFiniteError, bad_input, stopped
from .guard import buffer_digests, check_alike, parameter_digests
from .job import TrainJob
from .keeper import Keeper
from .losses import training_losses, validation_losses
from .model import build_model
from .moving import ahead, moved, on_device_if_small
from .optim import make_optimizer
from .parallel import from_rank_zero, gather_counts, sum_over_ranks
from .precision import make_precision
from .randomness import reseed
from .result import FitResult
from .schedules import plateau_share
from .session import Interrupted, Session
from .shard import TARGET, Batch, Shard
from .shelf import setting_of
from .stepper import Stepper
from .strategy import make_strategy, spread_buffers, whole_weights


class Trainer:
    """One run: its model, how far it is, and its epochs."""

    def __init__(
        self, job: TrainJob, train: Shard, validation: Shard, session: Session, notify: Notify
    ) -> None:
        self.job, self.session, self.notify = job, session, notify
        device, world, training = session.device, session.world_size, job.training
        self.train, self.validation = on_device_if_small(train, device), validation
        self.balance = self._balance()
        if self.balance.rates is not None:
            if world > 1 and not train.shared:
                raise TrainingError(Problem(
                    rule="training.resample needs rows that fit in the object store of every node",
                    cure="Take class_weights, or give Ray more object store memory."))
            self.train = self.train.resampled(self.balance.rates)
        self.precision = make_precision(training, device)
        self.losses = training_losses(training, job.schema)
        self.model = build_model(job)
        self.in_parts = training.strategy == "fsdp" and world > 1
        if not self.in_parts:  # else its layers are moved one by one, each as it is parted
            self.model.to(device)
        self.feed = Feed(self.train, session, self._batch_rows())
        self.evaluator = self._evaluator(validation)
        if training.compile:
            rows = max(2, self._part_rows)  # of one row alone a batch norm has no statistics
            compile_or_warn(self.model, self.to_device(self.first_rows(rows)), self.precision,
                            notify)
        self.progress = Progress(identity=job.identity(self.feed.rows),
                                 setting=setting_of(device, world, training.strategy))
        self._guard("at the start", {**parameter_digests(self.model), **buffer_digests(self.model)})
        self.strategy = make_strategy(training.strategy, self.model, world, device)
        self.wrapped = self.strategy.module
        self.optimizer = make_optimizer(self.model, training)
        self.ema = Ema(self.model, training.ema) if training.ema is not None else None
        self.total = torch.zeros((), dtype=torch.float64, device=device)
        self.best_weights: dict[str, Tensor] = {}
        self.own_batch: Batch = {}
        self.own_share = 1.0
        parts = {"ema": self.ema, "scaler": self.precision.scaler}
        self.keeper = Keeper(self, {name: part for name, part in parts.items() if part is not None})
        self.keeper.take_up()
        self.cadence = Cadence(training.checkpoint_every, session)
        self.stepper = Stepper(
            job, session, self.model, self.strategy, self.optimizer, self.precision, self.losses,
            self.balance.weights, self.feed.steps * training.epochs, self.ema, self._norms())

    def _balance(self) -> Balance:
        schema, training, session = self.job.schema, self.job.training, self.session
        if training.class_weights == training.resample == "none":
            return Balance()
        counts = torch.zeros(len(schema.classes or ()) or 1, dtype=torch.float64)
        if schema.classes is not None and self.train.rows:
            targets = self.train.tensors[TARGET].cpu()
            counts += torch.bincount(targets, minlength=len(schema.classes))
        if not self.train.shared:
            counts = sum_over_ranks(counts.to(session.device), session.world_size).cpu()
        return make_balance(training, counts, schema).on(session.device)

    def _batch_rows(self) -> int:
        """Rows of a global batch, the same on every rank."""
        training, session = self.job.training, self.session
        counts = gather_counts(self.train.taken, session.world_size, session.device)
        rows = counts[0] if self.train.shared else sum(counts)
        size = batch_rows(training, rows, self.job.schema)
        tried = session.device.type == "cuda" and not self.in_parts
        if not tried or training.batch_size != "auto" or min(counts) == 0:
            return size
        attempt = step_attempt(self.model, self.train, self.losses, self.precision)
        parts = session.world_size * training.accumulate
        found = largest_fitting(size, most_rows(rows), lambda whole: attempt(-(-whole // parts)))
        return min(gather_counts(found, session.world_size, session.device))

    def _evaluator(self, validation: Shard) -> Evaluator:
        """Shares the validation rows out.

        Raises:
            TrainingError: there are none, or a worker has no row to train on.
        """
        rank, world = self.session.rank, self.session.world_size
        if validation.shared:
            cuts = [validation.rows * place // world for place in range(world + 1)]
            counts = [high - low for low, high in pairwise(cuts)]
            first = cuts[rank]
        else:
            counts, first = gather_counts(validation.rows, world, self.session.device), 0
        if min(self.feed.shares) == 0 or self.feed.rows < world or sum(counts) == 0:
            raise TrainingError(Problem(
                rule="every worker needs a training row, and there must be validation rows",
                got=f"{self.feed.rows} training and {sum(counts)} validation "
                    f"rows for {world} workers", cure="Lower training.workers."))
        return Evaluator(
            validation, first, counts, rank, self.first_row(),
            rows_at_once(self.job.schema, self._part_rows), self.job.schema, self.precision,
            validation_losses(self.job.training, self.job.schema), self.alive, self.balance.offset)

    def _guard(self, when: str, facts: Mapping[str, int]) -> None:
        """Every worker must be where the others are."""
        session = self.session
        check_alike({"step": self.progress.step, **facts}, session.world_size, session.device, when)

    def _guard_parameters(self, when: str) -> None:
        """Copies of the model must have stayed alike; parts of one can't differ."""
        if self.session.world_size > 1:
            self._guard(when, parameter_digests(self.model) if self.strategy.whole else {})

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
            self.finish_epoch({"train_loss": loss, "rows_per_s": self.feed.rows / took})

    def to_device(self, batch: Batch) -> Batch:
        return moved(batch, self.session.device)

    def batches(self) -> Iterator[Batch | None]:
        """This rank's batches of what is left of the epoch, not yet on its device; None where
        others still have rows. A step must be done before the next batch is asked for."""
        epoch, feed = self.progress.epoch, self.feed
        fresh = not feed.resumed
        steps = feed.begin(epoch)
        if self.session.world_size > 1:
            self._guard(f"in epoch {epoch + 1}", {"row order": feed.order_digest(epoch)})
        self.stepper.rate_share = plateau_share(
            self.job.training, [row[f"val_{self.job.metric}"] for row in self.progress.history],
            self.job.maximize)
        if fresh:  # else the random state is the checkpoint's
            reseed(self.job.training.seed, self.session.rank, epoch, feed.number)
        if feed.position.steps == 0:
            self.total.zero_()
        self.wrapped.train()
        self.cadence.restart()
        batches = ahead(feed.batches(epoch), self.session.device)
        for _ in range(steps):
            self.stepper.mark("data")
            batch = next(batches, None)
            yield batch if batch is not None and len(batch[TARGET]) else None
            feed.stretch.steps += 1
            self._between_steps()
        self._settle()

    def _settle(self) -> None:
        """No loss must be left that was not looked at."""
        late = self.stepper.guard.rest(self.progress.step)
        if late is not None:
            raise self._not_finite(NotFiniteError(LOSS, late=late))

    def _between_steps(self) -> None:
        """Keep a checkpoint when one is due, and stop when that is asked for."""
        self.keeper.check()
        every = self.job.training.guard_every
        if every is not None and self.progress.step % every == 0:
            self._guard_parameters(f"after step {self.progress.step}")
        order = self.cadence.step()
        if order != Order.GO_ON:
            self._settle()
            self.keeper.save()
        if order == Order.STOP:
            raise Interrupted

    def train_epoch(self) -> float:
        """One pass over all ranks' rows; the mean loss of a row."""
        for batch in self.batches():
            self.total += self.train_step(batch)
        return float(sum_over_ranks(self.total.clone(), self.session.world_size)) / self.feed.rows

    def train_step(self, batch: Batch | None) -> Tensor:
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
        return self.first_rows(1)

    def first_rows(self, rows: int) -> Batch:
        return {name: t[:rows] for name, t in self.train.tensors.items()}

    @property
    def _part_rows(self) -> int:
        """The most rows that a rank takes at once in training, the same on every rank."""
        parts = self.job.training.accumulate * (
            self.session.world_size if self.train.shared else 1)
        return -(-max(self.feed.sizes) // parts)

    def _norms(self) -> list[nn.Module]:
        """The batch norms that can't train on one row, where only the last of a batch is alone."""
        return [module for module in self.model.modules()
                if isinstance(module, nn.BatchNorm1d) and self._part_rows > 1]

    def own_batches(self) -> Iterator[Batch]:
        """What `batches` gives, to a loop of the user's own."""
        world = self.session.world_size
        for batch in self.batches():
            self.own_batch = self.to_device(self.first_row() if batch is None else batch)
            rows = 0 if batch is None else len(batch[TARGET])
            self.own_share = rows * world / self.feed.rows_now()
            self.stepper.settle(rows, spare=batch is None)
            yield self.own_batch
            self.stepper.unsettle(rows, spare=batch is None)

    def own_step(self, loss: Tensor) -> None:
        """A step of a loop of the user's own, from this rank's mean loss."""
        try:
            self.stepper.own_step(self.progress.step, loss, self.own_share, self.own_batch)
        except NotFiniteError as error:
            raise self._not_finite(error) from None
        self.progress.step += 1

    def _not_finite(self, error: NotFiniteError) -> TrainingError:
        epoch, feed = self.progress.epoch, self.feed
        step = feed.position.steps - error.late
        chosen = feed.chosen(epoch, error.late)
        if error.tensor == LOSS:  # the batch is gone, but its rows are there
            rows = self.train.take(chosen - feed.offset)
            error = bad_input(rows, self.job.schema) or error
        return stopped(error, epoch, step, chosen, self.session.rank)

    def evaluate(self) -> dict[str, float]:
        """`val_loss` and every metric of the task on all ranks' validation rows."""
        self.spread_buffers()
        with self._exported():
            return self.evaluator(self.model)

    def spread_buffers(self) -> None:
        """Every rank gets the buffers that are exported."""
        spread_buffers(self.model, self.session.world_size)

    def alive(self) -> None:
        """Tell that this rank got on, outside of a step."""
        self.session.alive(self.cadence.typical)

    def _exported(self) -> AbstractContextManager[None]:
        """Where the model has the weights that are evaluated and exported."""
        return self.ema.swapped() if self.ema is not None else nullcontext()

    def finish_epoch(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Count the epoch, evaluate, keep a checkpoint, report."""
        progress = self.progress
        self._guard_parameters(f"after epoch {progress.epoch + 1}")
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
                with self._exported():
                    self.best_weights = {n: t.detach().cpu().clone()
                                         for n, t in whole_weights(self.model).items()}
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
            resumes=progress.resumes, offset=self.balance.offset,
        )
