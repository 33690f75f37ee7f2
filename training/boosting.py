"""Fits `gbdt`: LightGBM's trees, a part of them an epoch, so that they are searched, stopped,
checkpointed and taken up again like any other model."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raymill.errors import TrainingError
from raymill.events import Notify
from raymill.failpoints import failpoint

from .balance import Balance, make_balance
from .checkpoint import MODEL, Progress, at, read_group
from .epochs import count_rows, spent, take_down, tell_epoch
from .evaluating import measure
from .families.gbdt import GBDT, matrix
from .job import TrainJob
from .losses import row_losses
from .model import build_model
from .network import Network, connected
from .parallel import from_rank_zero, gather_rows, sum_over_ranks
from .result import FitResult
from .session import Interrupted, Session, StopTraining
from .shard import TARGET, Shard
from .shelf import Shelf, setting_of
from .trees import Forest, parse

Margins = NDArray[np.float64]
SAID = 500_000  # rows that trees answer at a time; the watchdog hears of each


def fit(
    job: TrainJob, train: Shard, validation: Shard, session: Session, notify: Notify
) -> FitResult:
    """Grow the job's trees on this rank's rows, `rounds / epochs` of them an epoch.

    Several ranks grow the same trees together, each on its own rows (LightGBM's data-parallel
    learner). Every epoch is a boosting of its own on what the trees so far leave, with a seed of
    its own: so one that goes on from a checkpoint grows the very trees that an unbroken one does.
    """
    return grown(job, train, validation, session, notify).result()


def grown(
    job: TrainJob, train: Shard, validation: Shard, session: Session, notify: Notify
) -> Boosting:
    """The run of `fit`, come to its end."""
    with connected(session.rank, session.world_size) as network:
        boosting = Boosting(job, train, validation, session, notify, network)
        try:
            while not boosting.done:
                boosting.epoch()
        except StopTraining:
            pass
        except BaseException:
            boosting.shelf.abandon()
            raise
        boosting.shelf.close()
    return boosting


class Boosting:
    """One run: its trees, what they say of every row by now, and how far it is."""

    def __init__(
        self, job: TrainJob, train: Shard, validation: Shard, session: Session, notify: Notify,
        network: Network | None,
    ) -> None:
        self.job, self.session, self.notify, self.network = job, session, notify, network
        train, validation = (shard.own(session.rank, session.world_size)
                             for shard in (train, validation))
        self.counts, self.validation_counts = count_rows(train, validation, session)
        model = build_model(job)
        assert isinstance(model, GBDT)
        self.model = model
        self.rows = {"train": matrix(train.tensors), "validation": matrix(validation.tensors)}
        self.targets = {"train": train.tensors[TARGET],
                        "validation": validation.tensors.get(TARGET, torch.zeros(0))}
        self.margins: dict[str, Margins] = {
            split: np.zeros((len(rows), job.schema.outputs)) for split, rows in self.rows.items()}
        self.balance = self._balance()
        self.weights = self.balance.weights
        self.dataset = self._dataset()
        self.progress = Progress(identity=job.identity(sum(self.counts)),
                                 setting=setting_of(session.device, session.world_size))
        self.shelf = Shelf(session, notify)
        self.best = self.model.state_dict()
        self._round_s = 0.0  # that a round takes
        self._resume()

    @property
    def done(self) -> bool:
        """Whether epochs, rounds or patience ran out, or no split is worth it any more."""
        trees = [row["trees"] for row in self.progress.history[-2:]]
        idle = len(trees) == 2 and trees[0] == trees[1]
        return idle or self._rounds >= self.job.params["rounds"] or spent(self.progress, self.job)

    def epoch(self) -> None:
        """Grow an epoch's trees, evaluate, keep a checkpoint, report."""
        progress, session = self.progress, self.session
        more = self._grow()
        if more.splits or self.model.forest is None:
            self._add(more)
        progress.epoch += 1
        row = {"epoch": progress.epoch, "trees": float(self._rounds), "train_loss": self._loss(),
               **self._evaluate()}
        if take_down(progress, self.job, row):
            self.best = self.model.state_dict()
            progress.best_checkpoint = self.shelf.number
        self.shelf.put({MODEL: self.model.state_dict()}, progress)
        if session.rank == 0:
            tell_epoch(self.notify, self.job, row)
        session.report(row)
        failpoint("train.after_report")
        asked = from_rank_zero([int(session.stopping)], session.world_size, session.device)
        if asked == [1]:
            raise Interrupted

    def result(self) -> FitResult:
        """The best epoch's.

        Raises:
            TrainingError: no epoch was finished.
        """
        progress = self.progress
        if progress.best is None:
            raise TrainingError("training must finish an epoch")
        return self._result(progress.best_epoch, progress.best_checkpoint, self.best)

    def latest(self) -> FitResult:
        """The last epoch's, whatever its metrics."""
        return self._result(self.progress.epoch, self.shelf.number - 1, self.model.state_dict())

    def _result(self, epoch: int, number: int, weights: dict[str, Tensor]) -> FitResult:
        progress, folder = self.progress, self.session.folder
        return FitResult(
            best=progress.history[epoch - 1], best_epoch=epoch, epochs=progress.epoch,
            history=progress.history, weights={} if folder else weights,
            checkpoint=at(folder, number) if folder else None,
            resumes=progress.resumes, offset=self.balance.offset)

    @property
    def _rounds(self) -> int:
        return self.model.forest.rounds if self.model.forest is not None else 0

    def _balance(self) -> Balance:
        schema, training = self.job.schema, self.job.training
        if training.class_weights == "none":
            return Balance()
        counts = torch.zeros(len(schema.classes or ()) or 1, dtype=torch.float64)
        if schema.classes is not None:
            counts += torch.bincount(self.targets["train"], minlength=len(schema.classes))
        total = sum_over_ranks(counts.to(self.session.device), self.session.world_size).cpu()
        return make_balance(training, total, schema)

    def _dataset(self) -> Any:
        """The training rows in bins, once for all epochs."""
        import lightgbm

        schema = self.job.schema
        numbers = len(schema.numeric)
        weight = None
        if self.weights is not None:
            weight = self.weights[self.targets["train"]].numpy()
        dataset = lightgbm.Dataset(
            self.rows["train"], label=self.targets["train"].numpy(), weight=weight,
            categorical_feature=list(range(numbers, numbers + len(schema.categorical))),
            params=self._params(0), free_raw_data=True,
        ).construct()
        if self.network is not None:
            self.network.check()
        return dataset

    def _params(self, epoch: int) -> dict[str, Any]:
        """LightGBM's, with the seeds of an epoch."""
        own, schema = self.job.params, self.job.schema
        objective = "regression" if schema.task == "regression" else schema.task
        seed = (self.job.training.seed * 100_003 + epoch) % (1 << 30)
        together = {"num_machines": self.session.world_size, "tree_learner": "data",
                    "pre_partition": True} if self.network is not None else {}
        return together | {
            "objective": objective, "num_class": schema.outputs, "verbosity": -1,
            "learning_rate": own["learning_rate"], "num_leaves": own["leaves"],
            "max_depth": own["depth"] or -1, "min_data_in_leaf": own["min_rows"],
            "feature_fraction": own["feature_fraction"], "bagging_fraction": own["row_fraction"],
            "bagging_freq": int(own["row_fraction"] < 1), "lambda_l1": own["l1"],
            "lambda_l2": own["l2"], "max_bin": own["bins"], "num_threads": torch.get_num_threads(),
            "deterministic": True, "force_row_wise": True, "feature_pre_filter": False,
            "data_random_seed": self.job.training.seed % (1 << 30), "bagging_seed": seed,
            "feature_fraction_seed": seed, "extra_seed": seed, "objective_seed": seed,
        }

    def _grow(self) -> Forest:
        """The next epoch's trees, on what those so far leave."""
        import lightgbm

        epoch, schema = self.progress.epoch, self.job.schema
        total, epochs = self.job.params["rounds"], self.job.training.epochs
        wanted = max(self._rounds + 1, total * (epoch + 1) // epochs) - self._rounds
        if epoch:
            self.dataset.set_init_score(_flat(self.margins["train"]))
        booster = lightgbm.Booster(self._params(epoch), self.dataset)
        began = time.monotonic()
        for round_ in range(1, wanted + 1):
            ended = booster.update()
            if self.network is not None:
                self.network.check()
            self._round_s = (time.monotonic() - began) / round_
            self.session.alive(lambda: self._round_s)
            if ended:
                break
        return parse(booster.model_to_string(), self.model.features, schema.outputs)

    def _add(self, more: Forest) -> None:
        """Put trees behind those that there are, and their word to that on every row."""
        old = self._rounds
        forest = self.model.forest
        self.model.forest = more if forest is None else forest.then(more)
        self._say(old, self._rounds)

    def _say(self, start: int, end: int) -> None:
        for split, rows in self.rows.items():
            for low in range(0, len(rows), SAID):
                said = self.model.booster.predict(
                    rows[low : low + SAID], start_iteration=start, num_iteration=end - start,
                    raw_score=True, num_threads=torch.get_num_threads())
                margins = self.margins[split][low : low + SAID]
                margins += np.asarray(said).reshape(len(margins), -1)
                self.session.alive(lambda: self._round_s)

    def _resume(self) -> None:
        """Go on from the newest checkpoint, epoch by epoch: sums of floats depend on their order."""
        found = self.shelf.newest(self.progress.identity, self.job.metric)
        if found is None:
            return
        path, progress = found
        before, progress.setting = progress.setting, self.progress.setting
        self.progress = progress
        self.model.load_state_dict(read_group(path, MODEL))
        rounds = [0, *(int(row["trees"]) for row in self.progress.history)]
        for start, end in pairwise(rounds):
            if end > start:
                self._say(start, end)
        if not self.done:
            self.shelf.tell(progress, before == progress.setting, before)

    def _loss(self) -> float:
        """The mean loss of a training row of all ranks, each times its class's weight."""
        target = self.targets["train"]
        losses = row_losses(torch.from_numpy(self.margins["train"]), target, self.job.schema)
        if self.weights is not None:
            losses = losses * self.weights[target]
        total = losses.double().sum().to(self.session.device)
        return float(sum_over_ranks(total, self.session.world_size)) / sum(self.counts)

    def _evaluate(self) -> dict[str, float]:
        def of_all(rows: Tensor) -> Tensor:
            return torch.from_numpy(gather_rows(rows.to(self.session.device),
                                                self.validation_counts))

        output = torch.from_numpy(self.margins["validation"]).float()
        if self.balance.offset:
            output = output + output.new_tensor(self.balance.offset)
        return measure(of_all(output), of_all(self.targets["validation"]), self.job.schema)


def _flat(margins: Margins) -> Margins:
    return margins[:, 0] if margins.shape[1] == 1 else margins
