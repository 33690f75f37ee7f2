"""The training loop. One loop, run inline, in a Tune trial or by Ray Train's workers."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raymill.errors import Problem, TrainingError
from raymill.events import Event, Notify, ignore
from raymill.failpoints import failpoint

from . import checkpoint
from .factories import load_object
from .families import FAMILIES, build
from .job import TrainJob
from .metrics import compute_all
from .optim import batch_rows, class_weights, learning_rate, make_optimizer, row_losses, scores_of
from .parallel import check_equal, gather_counts, gather_rows, sum_over_ranks
from .session import Session, StopTraining
from .shard import TARGET, Batch, Shard, equal_steps, step_rows

EVALUATION_ROWS = 8192
EXECUTION = {"max_failures", "cpus_per_worker"}  # a run goes on when they change
CHECK_EVERY = 16  # steps between looks at the loss, where a look waits for the GPU


@dataclass(frozen=True)
class FitResult:
    """What a training run came to.

    Attributes:
        best: the metrics of the best epoch. history: those of every epoch.
        checkpoint: of the best epoch; None where the session keeps none.
        weights: of the best epoch, where the session keeps no checkpoints.
    """

    best: dict[str, float]
    best_epoch: int
    epochs: int
    history: list[dict[str, float]]
    checkpoint: Path | None
    weights: dict[str, Tensor] = field(default_factory=dict, repr=False)


def build_model(job: TrainJob) -> nn.Module:
    """The job's model with weights that its seed decides."""
    torch.manual_seed(job.training.seed)
    if job.family in FAMILIES:
        return build(job.family, job.params, job.schema)
    factory = load_object(job.family, job.project)
    return build(job.family, job.params, job.schema, {job.family: factory})


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


class Trainer:
    """One run's state and its steps."""

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
        self.progress = checkpoint.Progress(identity=self._identity())
        self.best_weights: dict[str, Tensor] = {}
        self._resume()
        self.wrapped: nn.Module = self.model
        if world > 1:
            check_equal(self.model, world, device)
            self.wrapped = DistributedDataParallel(
                self.model, device_ids=[device.index] if device.type == "cuda" else None)
        self.weights = self._class_weights()
        size = batch_rows(job.training, sum(self.counts), job.schema)
        self.steps, self.batch_rows = equal_steps(self.counts, size)
        self.autocast = device.type == "cuda" and job.training.precision != "fp32"
        self.autocast |= job.training.precision == "bf16"

    def _identity(self) -> str:
        said = self.job.to_dict()
        said["training"] = {k: v for k, v in said["training"].items() if k not in EXECUTION}
        facts = {**said, "project": None, "rows": sum(self.counts)}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def _resume(self) -> None:
        latest = self.session.latest_checkpoint()
        if latest is None or checkpoint.read_progress(latest).identity != self.progress.identity:
            return
        self.progress = checkpoint.restore(latest, self.model, self.optimizer)
        if self.session.rank == 0:
            self.notify(Event("note", {"text": f"goes on after epoch {self.progress.epoch}"}))

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
            loss = self._step(step, self.to_device(batch) if batch is not None else None)
            total += loss
            if step % looks == 0 and not bool(torch.isfinite(loss)):
                self._not_finite(step)
        mean = float(sum_over_ranks(total, self.session.world_size)) / sum(self.counts)
        if not np.isfinite(mean):
            self._not_finite(self.steps - 1)
        return mean

    def _step(self, step: int, batch: Batch | None) -> Tensor:
        """One optimizer step; the sum of this rank's row losses.

        The loss is scaled by the rows of all ranks, so that uneven shards weigh each row alike. A
        rank that has run out of rows takes part with one row of weight zero.
        """
        idle = batch is None
        if idle:
            self.wrapped.eval()  # the row must not touch batch statistics
            batch = self.to_device({name: t[:1] for name, t in self.train.tensors.items()})
        assert batch is not None
        rows = step_rows(step, self.counts, self.batch_rows)
        self.optimizer.zero_grad(set_to_none=True)
        device = self.session.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.autocast):
            output = self.wrapped(batch)
        summed = self.weighted(output, batch[TARGET]).sum() * (0.0 if idle else 1.0)
        self.descend(summed * (self.session.world_size / rows))
        if idle:
            self.wrapped.train()
        return summed.detach().double()

    def weighted(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss `[B]` of each row, times its class's weight."""
        losses = row_losses(output, target, self.job.schema)
        return losses if self.weights is None else losses * self.weights[target]

    def descend(self, loss: Tensor) -> None:
        """Backward, and an optimizer step at the schedule's learning rate."""
        training = self.job.training
        loss.backward()
        if training.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), training.clip_norm)
        rate = learning_rate(training, self.progress.step, self.steps * training.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.progress.step += 1

    def _not_finite(self, step: int) -> None:
        bad = [n for n, p in self.model.named_parameters() if not bool(torch.isfinite(p).all())]
        raise TrainingError(Problem(
            rule="the loss must stay finite",
            got=f"NaN or Inf in epoch {self.progress.epoch + 1}, step {step + 1}"
                + (f", first in {bad[0]}" if bad else ""),
            cure="Lower training.lr, or set training.clip_norm; nothing was checkpointed after."))

    @torch.inference_mode()
    def evaluate(self) -> dict[str, float]:
        """`val_loss` and every metric of the task on all ranks' validation rows."""
        self.wrapped.eval()
        outputs: list[Tensor] = []
        for batch in self.validation.batches(0, EVALUATION_ROWS, shuffle=False):
            moved = self.to_device(batch)
            with torch.autocast(self.session.device.type, dtype=torch.bfloat16,
                                enabled=self.autocast):
                outputs.append(self.model(moved).float())
        schema = self.job.schema
        width = schema.outputs
        output = torch.cat(outputs) if outputs else torch.zeros((0, width))
        target = self.validation.tensors.get(TARGET, torch.zeros(0))
        output = output.to(self.session.device)
        target = target.to(self.session.device)
        all_output = torch.from_numpy(gather_rows(output, self.validation_counts))
        all_target = torch.from_numpy(gather_rows(target, self.validation_counts))
        loss = float(row_losses(all_output, all_target, schema).double().mean())
        scores = scores_of(all_output, schema).numpy()
        y: NDArray[Any] = all_target.numpy()
        if schema.task == "regression":
            y = y * schema.target_std + schema.target_mean
        values = compute_all(y, scores, schema)
        return {"val_loss": loss, **{f"val_{name}": v for name, v in values.items()}}

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


@dataclass(frozen=True)
class LoopContext:
    """What a training loop of the user's own gets, as `loop(context)`.

    `context.batches()` gives this worker's batches of the current epoch on its device. Take the
    model's output under `context.autocast()`, any mean loss of a row, and give it to
    `context.step(loss)`; then call `context.finish_epoch(train_loss=...)`, which evaluates,
    checkpoints and reports, until `context.done`.

    The spec's `precision` is what `autocast` does; `clip_norm`, `schedule` and `warmup` are what
    `step` does, and `class_weights` what `row_losses` does. A loop that goes without one of them
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
        one that runs out of rows before the others gets its first row again."""
        trainer = self._trainer
        batches = trainer.begin_epoch()
        for _ in range(trainer.steps):
            batch = next(batches, None)
            if batch is None:
                batch = {name: t[:1] for name, t in trainer.train.tensors.items()}
            yield trainer.to_device(batch)

    def autocast(self) -> AbstractContextManager[Any]:
        """Where the model runs in the spec's `precision`."""
        trainer = self._trainer
        return torch.autocast(trainer.session.device.type, dtype=torch.bfloat16,
                              enabled=trainer.autocast)

    def row_losses(self, output: Tensor, target: Tensor) -> Tensor:
        """The task's loss `[B]` of each row, times its class's weight."""
        return self._trainer.weighted(output, target)

    def step(self, loss: Tensor) -> None:
        """Backward from this worker's mean loss, and one optimizer step, as the spec says.

        One step a batch: the schedule counts them.
        """
        self._trainer.optimizer.zero_grad(set_to_none=True)
        self._trainer.descend(loss)

    def evaluate(self) -> dict[str, float]:
        """The metrics on all validation rows."""
        return self._trainer.evaluate()

    def finish_epoch(self, **metrics: float) -> dict[str, float]:
        """End an epoch: evaluate, checkpoint, report; the epoch's metrics."""
        return self._trainer.finish_epoch(metrics)


def as_dict(result: FitResult) -> dict[str, Any]:
    """`result` as JSON-serialisable data, without the weights."""
    checkpoint = str(result.checkpoint) if result.checkpoint else None
    return {"best": result.best, "best_epoch": result.best_epoch, "epochs": result.epochs,
            "history": result.history, "checkpoint": checkpoint}


def from_dict(state: Mapping[str, Any]) -> FitResult:
    """What `as_dict` gave."""
    path = state["checkpoint"]
    return FitResult(**{**state, "checkpoint": Path(path) if path else None})
