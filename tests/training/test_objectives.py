"""Losses, class balance, optimizers, schedules and averaged weights do what their papers say."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from raymill.data.schema import InputSchema
from raymill.errors import SpecError
from raymill.training.balance import make_balance, resampled
from raymill.training.bundle import write
from raymill.training.checkpoint import MODEL, load_weights, read_group
from raymill.training.ema import Ema
from raymill.training.job import TrainJob
from raymill.training.loop import fit
from raymill.training.losses import scores_of, training_losses
from raymill.training.optim import Together, make_optimizer
from raymill.training.schedules import learning_rate, plateau_share
from raymill.training.session import InlineSession
from raymill.training.shard import Shard
from raymill.training.spec import TrainingSpec

from .samples import BINARY, CLASSES, VALUES, block, job, prepared, shards


@pytest.mark.parametrize(("schema", "training", "metric", "bar"), [
    (BINARY, {"optimizer": "sgd", "nesterov": True, "lr": 0.05}, "val_roc_auc", 0.9),
    (BINARY, {"optimizer": "muon"}, "val_roc_auc", 0.95),
    (CLASSES, {"loss": "focal", "focal_gamma": 1.5}, "val_accuracy", 0.8),
    (CLASSES, {"label_smoothing": 0.1, "schedule": "one_cycle"}, "val_accuracy", 0.8),
    (BINARY, {"ema": 0.9, "schedule": "linear", "accumulate": 4}, "val_roc_auc", 0.95),
    (BINARY, {"resample": "balanced", "schedule": "plateau"}, "val_roc_auc", 0.95),
    (VALUES, {"loss": "huber", "huber_delta": 0.5}, "val_r2", 0.8),
    (VALUES, {"loss": "mae"}, "val_r2", 0.8),
    (VALUES, {"loss": "quantile", "quantile": 0.5}, "val_r2", 0.8),
])
def test_each_objective_learns(
    schema: InputSchema, training: dict[str, Any], metric: str, bar: float
) -> None:
    result = fit(job(schema, epochs=15, **training), *shards(schema), InlineSession())
    assert result.best[metric] > bar


def test_the_pinball_loss_finds_the_quantile() -> None:
    schema = InputSchema(("a",), (), None, "regression", None)
    losses = training_losses(TrainingSpec(loss="quantile", quantile=0.8), schema)
    target = torch.rand(20_001, generator=torch.Generator().manual_seed(0))
    means = [losses(torch.full((len(target), 1), q), target).mean() for q in (0.7, 0.8, 0.9)]
    assert min(means) == means[1]


@pytest.mark.parametrize("schema", [BINARY, CLASSES])
def test_a_focal_loss_of_rows_that_are_sure_has_finite_gradients(schema: InputSchema) -> None:
    """The slope of a root of 1 - p is infinite where p is 1."""
    target = torch.tensor([schema.outputs - 1 or 1, 0])
    output = torch.zeros(2, schema.outputs)
    output[0, -1], output[1, 0] = 30.0, 30.0 if schema.outputs > 1 else -30.0
    output.requires_grad_()
    training_losses(TrainingSpec(loss="focal", focal_gamma=0.5), schema)(output, target).sum(
        ).backward()
    assert output.grad is not None and bool(torch.isfinite(output.grad).all())


@pytest.mark.parametrize("schema", [BINARY, CLASSES])
def test_a_focal_loss_without_focus_is_cross_entropy(schema: InputSchema) -> None:
    output = torch.randn(32, schema.outputs, generator=torch.Generator().manual_seed(1))
    target = torch.arange(32) % len(schema.classes or ())
    plain = training_losses(TrainingSpec(), schema)(output, target)
    focal = training_losses(TrainingSpec(loss="focal", focal_gamma=0), schema)(output, target)
    assert torch.allclose(plain, focal)
    sharp = training_losses(TrainingSpec(loss="focal"), schema)(output, target)
    assert torch.allclose(sharp, plain * (1 - torch.exp(-plain)) ** 2)


def test_smoothing_of_two_classes_is_that_of_many() -> None:
    logits = torch.randn(16, 1, generator=torch.Generator().manual_seed(2))
    target = torch.arange(16) % 2
    ours = training_losses(TrainingSpec(label_smoothing=0.2), BINARY)(logits, target)
    both = torch.cat([torch.zeros(16, 1), logits], dim=1)
    assert torch.allclose(ours, functional.cross_entropy(both, target, reduction="none",
                                                         label_smoothing=0.2), atol=1e-6)


@pytest.mark.parametrize("training", [
    {"resample": "balanced"}, {"class_weights": "balanced", "prior_correction": True}])
def test_balancing_with_prior_correction_keeps_the_probabilities(
    tmp_path: Path, training: dict[str, Any]
) -> None:
    """Without a signal the best answer is the prior, whatever the balance."""
    draw = np.random.default_rng(0)
    rows = block(2000, CLASSES)
    rows["target"] = draw.choice(3, size=2000, p=[0.85, 0.1, 0.05])
    rows["numeric"][:], rows["categorical"][:] = 0, 2
    given = Shard([rows])
    made = job(CLASSES, family="linear", epochs=8, patience=None, lr=0.05, weight_decay=0,
               model={}, **training)
    result = fit(made, given, given, InlineSession())
    prior = np.bincount(rows["target"]) / 2000
    bundle = write(tmp_path / "bundle", made, result.weights, prepared(tmp_path, CLASSES), {}, {},
                   result.offset)
    batch = {name: t[:1] for name, t in given.tensors.items()}
    got = scores_of(bundle.model()(batch), CLASSES)[0].detach().numpy()
    assert got == pytest.approx(prior, abs=0.03)
    expected_loss = -float((prior * np.log(prior)).sum())
    assert result.best["val_loss"] == pytest.approx(expected_loss, abs=0.01)


def test_resampled_rows_are_balanced_and_each_occurs() -> None:
    targets = torch.tensor([0] * 90 + [1] * 10)
    balance = make_balance(TrainingSpec(resample="balanced"), torch.tensor([90.0, 10.0]), BINARY)
    assert balance.rates is not None
    rows = resampled(targets, balance.rates, torch.Generator().manual_seed(0))
    assert torch.bincount(targets[rows]).tolist() == [50, 50]
    assert set(rows[targets[rows] == 1].tolist()) == set(range(90, 100))
    assert balance.offset == pytest.approx([np.log(50 / 90) - np.log(5)])


def test_a_shard_that_trained_resampled_stays_as_it_was() -> None:
    train, validation = shards()
    fit(job(resample="balanced", epochs=1), train, validation, InlineSession())
    assert train.taken == train.rows
    assert sorted(train.order(0).tolist()) == list(range(train.rows))


def test_averaged_weights_are_evaluated_checkpointed_and_exported(tmp_path: Path) -> None:
    kept = fit(job(ema=0.9), *shards(), InlineSession(tmp_path))
    held = fit(job(ema=0.9), *shards(), InlineSession())
    plain = fit(job(), *shards(), InlineSession())
    assert kept.checkpoint is not None
    exported = load_weights(kept.checkpoint)
    assert all(torch.equal(exported[name], held.weights[name]) for name in exported)
    assert not torch.equal(exported["body.0.weight"], plain.weights["body.0.weight"])
    assert torch.equal(read_group(kept.checkpoint, MODEL)["body.0.weight"],
                       plain.weights["body.0.weight"])


def test_an_average_warms_up_and_leaves_the_weights_alone() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    ema = Ema(model, 0.99)
    nn.init.constant_(model.weight, 1.0)
    ema.update()
    with ema.swapped():
        assert model.weight.item() == pytest.approx(1 - 2 / 11)
    assert model.weight.item() == 1.0


def test_muon_takes_matrices_and_leaves_the_rest_to_adamw() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3))
    optimizer = make_optimizer(model, TrainingSpec(optimizer="muon"))
    assert isinstance(optimizer, Together)
    muon, adamw = optimizer.parts
    assert [p.shape for g in muon.param_groups for p in g["params"]] == [(3, 4)]
    assert [p.shape for g in adamw.param_groups for p in g["params"]] == [(5, 4), (3,)]


@pytest.mark.parametrize("optimizer", ["sgd", "muon", "adamw"])
def test_an_optimizers_state_comes_back(optimizer: Any) -> None:
    def steps(model: nn.Module, opt: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            opt.zero_grad()
            model(torch.ones(2, 4)).square().sum().backward()
            opt.step()

    spec = TrainingSpec(optimizer=optimizer, lr=0.01)
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    first = make_optimizer(whole, spec)
    steps(whole, first, 2)
    cut = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    cut.load_state_dict(whole.state_dict())
    second = make_optimizer(cut, spec)
    second.load_state_dict(deepcopy(first.state_dict()))
    steps(whole, first, 2)
    steps(cut, second, 2)
    assert torch.equal(whole[0].weight, cut[0].weight)


@pytest.mark.parametrize(("schedule", "at"), [
    ("linear", [0.5, 1.0, 0.5, 0.0]), ("constant", [0.5, 1.0, 1.0, 1.0]),
    ("cosine", [0.5, 1.0, 0.5, 0.0]), ("plateau", [0.5, 1.0, 1.0, 1.0]),
    ("one_cycle", [0.52, 1.0, 0.5, 0.0]),
])
def test_schedules_pass_where_they_should(schedule: Any, at: list[float]) -> None:
    spec = TrainingSpec(lr=1.0, warmup=0.2, schedule=schedule)
    rates = [learning_rate(spec, step, 100) for step in (9, 20, 60, 100)]
    assert rates == pytest.approx(at, abs=1e-5)


def test_a_plateau_lowers_the_rate_after_three_epochs_without_a_better_one() -> None:
    spec = TrainingSpec(schedule="plateau")
    values = [0.5, 0.6, 0.6, 0.59, 0.58, 0.7, 0.1, 0.1, 0.1]
    shares = [plateau_share(spec, values[:n], maximize=True) for n in range(len(values) + 1)]
    assert shares == pytest.approx([1, 1, 1, 1, 1, 0.3, 0.3, 0.3, 0.3, 0.09])
    assert plateau_share(TrainingSpec(), values, maximize=True) == 1.0


@pytest.mark.parametrize(("training", "said"), [
    ({"momentum": 0.5}, "momentum does nothing here"),
    ({"quantile": 0.9}, "it is for loss: quantile"),
    ({"label_smoothing": 0.1, "loss": "focal"}, "cross entropy of classes"),
    ({"resample": "balanced", "class_weights": "balanced"}, "take one of"),
    ({"prior_correction": True}, "what class_weights or resample did"),
    ({"optimizer": "muon", "strategy": "fsdp"}, "whole matrices"),
    ({"optimizer": "sgd", "nesterov": True, "momentum": 0}, "momentum above 0"),
    ({"workers": {"min": 3, "max": 2}}, "min must not be above max"),
    ({"class_weights": {"yes": 0, "no": 1}}, "greater than 0"),
])
def test_keys_that_would_do_nothing_are_refused(training: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TrainingSpec.model_validate(training)


@pytest.mark.parametrize(("schema", "training", "said"), [
    (VALUES, {"loss": "focal"}, "Take one of mse, mae, huber, quantile"),
    (BINARY, {"loss": "quantile"}, "Take one of cross_entropy, focal"),
    (VALUES, {"label_smoothing": 0.1}, "needs a class task"),
    (VALUES, {"resample": "balanced"}, "needs a class task"),
])
def test_an_objective_of_another_task_is_refused(
    schema: InputSchema, training: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        job(schema, **training)


def test_fp16_needs_a_gpu() -> None:
    made: TrainJob = job(precision="fp16")
    with pytest.raises(SpecError, match="fp16 needs a GPU"):
        fit(made, *shards(), InlineSession())
