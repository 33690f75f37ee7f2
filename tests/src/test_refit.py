"""From a search to the model: as the spec says, and averaged only where that is better.

Trials are trained inline, as a search would leave them; so is the winner, in place of Ray Train.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from raymill import refit as module
from raymill.data.contract import Contract
from raymill.data.prepare import Prepared
from raymill.data.rules import ColumnRule
from raymill.data.schema import InputSchema
from raymill.data.transform import Number, Transform
from raymill.errors import UsageError
from raymill.events import Event, Notify
from raymill.refit import Trained, plan_of, refit
from raymill.results import SearchOutcome
from raymill.spec import spec_from
from raymill.steps import as_found
from raymill.training.checkpoint import CHECKPOINTS, Progress, load_weights, snapshot, write
from raymill.training.families.ensemble import ENSEMBLE
from raymill.training.job import TrainJob, make_job
from raymill.training.loop import fit
from raymill.training.result import FitResult
from raymill.training.session import InlineSession
from raymill.training.shard import Shard
from raymill.training.spec import ModelSpec, TrainingSpec
from raymill.tuning.places import FOLDER, Places
from raymill.tuning.spec import TuningSpec

MODEL = ModelSpec.model_validate({"family": "mlp", "width": 16, "depth": 1})
TRAINING = TrainingSpec(epochs=4, batch_size=64, patience=None, gpu="never")
LRS = [1e-3, 2e-2, 5e-3]
SCHEMA = InputSchema(("a", "b"), (), None, "binary", ("no", "yes"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Two numbers whose product tells the class; the splits lie as Parquet."""
    place, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, rows in (("train", 700), ("validation", 300)):
        a, b = draw.normal(size=rows), draw.normal(size=rows)
        label = np.where(a * b + 0.4 * draw.normal(size=rows) > 0, "yes", "no")
        (place / split).mkdir()
        pq.write_table(pa.table({"a": a, "b": b, "y": label}), place / split / "part-0.parquet")
    number = ColumnRule(type="float64", kind="numeric")
    contract = Contract(target="y", task="binary", classes=["no", "yes"], columns={
        "a": number, "b": number, "y": ColumnRule(type="string", kind="categorical")})
    transform = Transform(
        task="binary", target="y", classes=("no", "yes"), target_mean=0.0, target_std=1.0,
        numbers=tuple(Number(n, 0.0, False, (-5.0, 5.0), (-5.0, 5.0)) for n in "ab"), dates=(),
        categories=(), image_column=None, image=None)
    return Prepared(path=place, fingerprint="f" * 64, contract=contract, transform=transform,
                    profile={}, rows={}, total_rows=1000, quarantined=0, in_gap=0, notes=[],
                    files=[])


def trained(
    job: TrainJob, data: Any, out: Path, notify: Notify, store: None = None
) -> FitResult:
    """Inline, what Ray Train does."""
    tables = (data.table(split) for split in ("train", "validation"))
    train, validation = (
        Shard([{**data.transform.apply(t), "target": data.transform.targets(t)}]) for t in tables)
    return fit(job, train, validation, InlineSession(out / "checkpoints"), notify)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, data: Prepared) -> SearchOutcome:
    """A search of three learning rates, all of whose trials left their weights."""
    folder, trials = tmp_path_factory.mktemp("search"), []
    for number, lr in enumerate(LRS):
        made = trained(job_of(data, lr), data, folder / FOLDER / str(number), lambda event: None)
        trials.append({"number": number, "state": "complete", "params": {"training.lr": lr},
                       "value": made.best["val_roc_auc"]})
    best = max(trials, key=lambda trial: trial["value"])
    training = TRAINING.model_copy(update={"lr": best["params"]["training.lr"]})
    return SearchOutcome(
        metric="roc_auc", best_params=best["params"], best_value=best["value"], trials=trials,
        model=MODEL.model_dump(), training=training.model_dump(), best_trial=best["number"],
        folder=folder, study="s")


def job_of(data: Prepared, lr: float) -> TrainJob:
    return make_job(MODEL, TRAINING.model_copy(update={"lr": lr}), "roc_auc",
                    data.transform.schema, None)


def work_of(folder: Path, told: list[Event], **tuning: Any) -> Any:
    spec = SimpleNamespace(name="x", model=tuning.pop("model", MODEL), training=TRAINING,
                           tuning=TuningSpec.model_validate(tuning))
    return SimpleNamespace(spec=spec, project=None, notify=told.append, store=None,
                           home=SimpleNamespace(path=folder))


@pytest.fixture
def refitted(tmp_path: Path, data: Prepared, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "train_distributed", trained)

    def call(found: SearchOutcome, told: list[Event] | None = None, **tuning: Any) -> Trained:
        job = job_of(data, found.best_params["training.lr"])
        work = work_of(tmp_path, [] if told is None else told, **tuning)
        return refit(work, data, job, found, tmp_path / f"train-{work.spec.tuning.refit}")

    return call


def winner(found: SearchOutcome) -> dict[str, torch.Tensor]:
    assert found.folder is not None and found.best_trial is not None
    checkpoint = Places(found.folder / FOLDER).best_checkpoint(found.best_trial)
    assert checkpoint is not None
    return load_weights(checkpoint)


def test_none_takes_the_winners_weights_as_they_are(refitted: Any, found: SearchOutcome) -> None:
    made = refitted(found, refit="none")
    kept = winner(found)
    assert all(torch.equal(made.weights[name], kept[name]) for name in kept)
    assert made.metrics["val_roc_auc"] == pytest.approx(found.best_value)
    assert len(made.history) == 4


def test_scratch_trains_anew_and_checkpoint_begins_with_the_winners_weights(
    refitted: Any, found: SearchOutcome
) -> None:
    scratch = refitted(found)
    begun = refitted(found, refit="checkpoint")
    assert scratch.job.start is None and begun.job.start is not None
    assert begun.history[0]["val_loss"] < scratch.history[0]["val_loss"]


def test_what_was_trained_again_on_all_rows_is_the_last(
    refitted: Any, found: SearchOutcome, data: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(job: TrainJob, data: Any, out: Path, notify: Notify, store: None) -> FitResult:
        again = trained(job.with_training(seed=1), data, out / "again", notify)
        return replace(trained(job, data, out, notify), regrown=again)

    once = refitted(found)
    monkeypatch.setattr(module, "train_distributed", twice)
    made = refitted(found)
    assert once.last is None
    assert made.last is not None
    assert all(torch.equal(made.weights[name], once.weights[name]) for name in once.weights)
    assert any(not torch.equal(made.last[0][name], once.weights[name]) for name in once.weights)
    averaged = refitted(found, ensemble=3)
    assert averaged.last is None or not averaged.members


def test_an_average_is_the_model_only_where_it_is_better(
    refitted: Any, found: SearchOutcome
) -> None:
    told: list[Event] = []
    made = refitted(found, told, refit="none", ensemble=3)
    said = told[-1].data["text"]
    assert "the average of 3 models reaches roc_auc" in said
    assert (made.job.family == ENSEMBLE) == ("the average is the model" in said)
    assert len(made.members) == (2 if made.job.family == ENSEMBLE else 0)
    assert made.metrics["val_roc_auc"] >= found.best_value - 1e-6


def test_members_are_of_the_family_that_auto_stood_for(
    refitted: Any, found: SearchOutcome
) -> None:
    """The stated space names no family, so neither do the trials; `auto` alone would be gbdt."""
    wide = [{**t, "params": {**t["params"], "model.width": 16, "model.depth": 1}}
            for t in found.trials]
    told: list[Event] = []
    refitted(replace(found, trials=wide), told, refit="none", ensemble=2, model=ModelSpec())
    assert "the average of 2 models reaches roc_auc" in told[-1].data["text"]


def test_an_average_that_breaks_a_constraint_stays_out(
    refitted: Any, found: SearchOutcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Event] = []
    measured = [{"roc_auc": 0.8, "recall": 0.9}, {"roc_auc": 0.9, "recall": 0.4}]
    monkeypatch.setattr(module, "_validation", lambda *_: measured.pop(0))
    made = refitted(found, told, refit="none", ensemble=3, constraints=["recall >= 0.5"])
    assert made.job.family == "mlp"
    assert "breaks recall >= 0.5: the best stays alone" in told[-1].data["text"]


def test_how_training_runs_is_as_the_spec_says_now(found: SearchOutcome) -> None:
    spec = spec_from({"name": "x", "data": {"source": "x.csv", "target": "y"}, "training": {
        "lr": 0.5, "strategy": "fsdp", "workers": 2, "checkpoint_every": 100, "guard_every": 7,
        "watchdog": "90s"}})
    model, training = as_found(spec, found)
    assert model == MODEL
    assert training.lr == found.best_params["training.lr"]
    assert (training.strategy, training.workers, training.checkpoint_every, training.guard_every,
            training.watchdog) == ("fsdp", 2, 100, 7, "90s")


def test_an_average_that_is_worse_stays_out(refitted: Any, found: SearchOutcome) -> None:
    """The companion is the opposite of the winner: their average knows nothing."""
    assert found.folder is not None
    others = [t for t in found.trials if t["number"] != found.best_trial]
    worst = SearchOutcome(**{**vars(found), "trials": [
        next(t for t in found.trials if t["number"] == found.best_trial),
        {**others[0], "number": 99, "value": 0.99}]})
    opposite = worst.folder / FOLDER / "99"  # type: ignore[operator]
    _write_opposite(winner(found), opposite)
    told: list[Event] = []
    made = refitted(worst, told, refit="none", ensemble=2)
    assert made.job.family == "mlp" and "the best stays alone" in told[-1].data["text"]


def _write_opposite(weights: dict[str, torch.Tensor], folder: Path) -> None:
    last = [name for name in weights if weights[name].shape[:1] == (1,)]
    opposite = {name: -t * 50 if name in last else t for name, t in weights.items()}
    progress = Progress(epoch=1, best=0.5, best_epoch=1, best_checkpoint=1)
    write(folder / CHECKPOINTS, 1, snapshot({"model": opposite}, progress))


def test_weights_that_were_not_kept_are_asked_for_in_vain(
    refitted: Any, found: SearchOutcome, tmp_path: Path
) -> None:
    gone = replace(found, folder=tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"checkpoint is not there.*Set tuning\.refit to scratch"):
        refitted(gone, refit="none")


def test_a_change_of_refit_or_leaders_is_another_training(
    found: SearchOutcome, tmp_path: Path
) -> None:
    plans = [plan_of(work_of(tmp_path, [], **tuning), found)
             for tuning in ({}, {"refit": "none"}, {"ensemble": 2}, {"ensemble": 3})]
    assert len({str(plan) for plan in plans}) == 4
    assert plan_of(work_of(tmp_path, []), SearchOutcome("roc_auc")) == {}
