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

from . import checkpoint
from .balance import class_weights
from .batching import batch_rows
from .evaluating import evaluate
from .job import TrainJob
from .model import build_model
from .optim import make_optimizer
from .parallel import check_equal, gather_counts, sum_over_ranks
from .precision import make_precision
from .result import FitResult
from .session import Session
from .shard import TARGET, Batch, Shard, equal_steps, step_rows
from .stepper import Stepper

CHECK_EVERY = 16  # steps between looks at the loss, where a look waits for the GPU


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
        self.progress = checkpoint.Progress(identity=job.identity(sum(self.counts)))
        self.best_weights: dict[str, Tensor] = {}
        self._resume()
        self.wrapped = self._wrap()
        size = batch_rows(job.training, sum(self.counts), job.schema)
        self.steps, self.batch_rows = equal_steps(self.counts, size)
        self.stepper = Stepper(
            job, session, self.model, self.wrapped, self.optimizer,
            make_precision(job.training, device), self._class_weights(),
            self.steps * job.training.epochs)

    def _resume(self) -> None:
        latest = self.session.latest_checkpoint()
        if latest is None or checkpoint.read_progress(latest).identity != self.progress.identity:
            return
        self.progress = checkpoint.restore(latest, self.model, self.optimizer)
        if self.session.rank == 0:
            self.notify(Event("note", {"text": f"goes on after epoch {self.progress.epoch}"}))

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

    def begin_epoch(self) -> Iterator[Batch]:
        """This rank's batches of the epoch, not yet on its device; the model is put to train."""
        rank, epoch = self.session.rank, self.progress.epoch
        # Dropout depends on nothing but this, so that a resumed run draws the same.
        torch.manual_seed((self.job.training.seed * 4099 + rank) * 1_000_003 + epoch)
        self.wrapped.train()
        return self.train.batches(epoch, self.batch_rows[rank])

    def train_epoch(self) -> float:
        """One pass over all ranks' rows; the mean loss of a row."""
        batches = self.begin_epoch()
        total = torch.zeros((), dtype=torch.float64, device=self.session.device)
        looks = 1 if self.session.device.type == "cpu" else CHECK_EVERY
        for step in range(self.steps):
            batch = next(batches, None)
            loss = self._step(step, batch)
            total += loss
            if step % looks == 0 and not bool(torch.isfinite(loss)):
                self._not_finite(step)
        mean = float(sum_over_ranks(total, self.session.world_size)) / sum(self.counts)
        if not np.isfinite(mean):
            self._not_finite(self.steps - 1)
        return mean

    def _step(self, step: int, batch: Batch | None) -> Tensor:
        """Step `step` of the epoch; the sum of this rank's row losses."""
        idle = batch is None
        given = self.first_row() if batch is None else batch
        rows = step_rows(step, self.counts, self.batch_rows)
        loss = self.stepper.step(self.progress.step, self.to_device(given), rows, idle=idle)
        self.progress.step += 1
        return loss

    def first_row(self) -> Batch:
        """What a rank takes that has run out of rows before the others."""
        return {name: t[:1] for name, t in self.train.tensors.items()}

    def own_step(self, loss: Tensor) -> None:
        """A step of a loop of the user's own, from this rank's mean loss."""
        self.optimizer.zero_grad(set_to_none=True)
        self.stepper.descend(loss, self.progress.step)
        self.progress.step += 1

    def _not_finite(self, step: int) -> None:
        bad = [n for n, p in self.model.named_parameters() if not bool(torch.isfinite(p).all())]
        raise TrainingError(Problem(
            rule="the loss must stay finite",
            got=f"NaN or Inf in epoch {self.progress.epoch + 1}, step {step + 1}"
                + (f", first in {bad[0]}" if bad else ""),
            cure="Lower training.lr, or set training.clip_norm; nothing was checkpointed after."))

    def evaluate(self) -> dict[str, float]:
        """`val_loss` and every metric of the task on all ranks' validation rows."""
        return evaluate(self.model, self.validation, self.validation_counts, self.job.schema,
                        self.stepper.precision)

    def finish_epoch(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Count the epoch, evaluate, keep a checkpoint, report."""
        progress = self.progress
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
            if self.session.folder is None:
                self.best_weights = {n: t.detach().cpu().clone()
                                     for n, t in self.model.state_dict().items()}
        else:
            progress.stale += 1
        if self.session.folder is not None and self.session.rank == 0:
            checkpoint.save(self.session.folder, self.model, self.optimizer, progress)
        if self.session.rank == 0:
            self.notify(Event("epoch", {
                "trial": None, "epoch": progress.epoch, "epochs": self.job.training.epochs,
                "metrics": row, "rows_per_s": row.get("rows_per_s")}))
        self.session.report(row)
        failpoint("train.after_report")
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
            checkpoint=checkpoint.of_epoch(folder, progress.best_epoch) if folder else None,
        )
