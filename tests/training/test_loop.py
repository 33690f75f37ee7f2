"""The one loop: it learns, stops, resumes exactly, and refuses what can't be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from raymill.data.schema import InputSchema
from raymill.errors import SpecError, TrainingError, UsageError
from raymill.events import Event
from raymill.training.balance import class_weights
from raymill.training.batching import batch_rows
from raymill.training.checkpoint import load_weights, of_epoch
from raymill.training.loop import fit
from raymill.training.result import FitResult
from raymill.training.schedules import learning_rate
from raymill.training.session import InlineSession, StopTraining
from raymill.training.shard import Shard
from raymill.training.spec import TrainingSpec
from raymill.training.testing import IMAGES

from .samples import BINARY, CLASSES, VALUES, block, job, shards


@pytest.mark.parametrize(("schema", "metric", "bar"), [
    (BINARY, "val_roc_auc", 0.95), (CLASSES, "val_accuracy", 0.8), (VALUES, "val_r2", 0.8),
])
def test_each_task_is_learnt(schema: InputSchema, metric: str, bar: float) -> None:
    result = fit(job(schema, epochs=15), *shards(schema), InlineSession())
    assert result.best[metric] > bar


def test_regression_errors_are_in_the_targets_unit() -> None:
    result = fit(job(VALUES), *shards(VALUES), InlineSession())
    assert result.best["val_rmse"] == pytest.approx(4 * result.best["val_loss"] ** 0.5, rel=1e-4)


def test_the_same_job_gives_the_same_weights() -> None:
    one, other = (fit(job(), *shards(), InlineSession()) for _ in range(2))
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


class Interrupted(InlineSession):
    """A session whose process dies after two epochs."""

    def report(self, metrics: Any) -> None:
        super().report(metrics)
        if metrics["epoch"] == 2:
            raise KeyboardInterrupt


def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = fit(job(), *shards(), InlineSession(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        fit(job(), *shards(), Interrupted(tmp_path / "cut"))
    cut = fit(job(), *shards(), InlineSession(tmp_path / "cut"))
    assert [row["epoch"] for row in cut.history] == [1, 2, 3, 4]
    one, other = (load_weights(of_epoch(tmp_path / name, 4)) for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert whole.best_epoch == cut.best_epoch


def test_a_finished_run_returns_at_once(tmp_path: Path) -> None:
    fit(job(), *shards(), InlineSession(tmp_path))
    again = InlineSession(tmp_path)
    assert fit(job(), *shards(), again).epochs == 4
    assert again.reports == []


def test_another_jobs_checkpoints_are_refused_and_left(tmp_path: Path) -> None:
    fit(job(), *shards(), InlineSession(tmp_path))
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(UsageError, match="another job's"):
        fit(job(lr=0.02), *shards(), InlineSession(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_run_goes_on_where_more_failures_are_allowed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(job(max_failures=0), *shards(), Interrupted(tmp_path))
    again = InlineSession(tmp_path)
    fit(job(max_failures=5, cpus_per_worker=2), *shards(), again)
    assert [row["epoch"] for row in again.reports] == [3, 4]


def test_patience_ends_a_run_and_the_best_epoch_is_kept(tmp_path: Path) -> None:
    result = fit(job(epochs=50, patience=2, lr=0.05), *shards(), InlineSession(tmp_path))
    assert result.epochs == result.best_epoch + 2 < 50
    assert result.checkpoint == of_epoch(tmp_path, result.best_epoch)
    assert result.best["val_roc_auc"] == max(row["val_roc_auc"] for row in result.history)


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_no_checkpoint(tmp_path: Path) -> None:
    rows = block(200)
    rows["numeric"][17, 0] = float("inf")
    with pytest.raises(TrainingError, match="NaN or Inf in epoch 1"):
        fit(job(), Shard([rows]), shards()[1], InlineSession(tmp_path))
    assert not list(tmp_path.glob("ckpt-*"))


def test_a_metric_that_is_not_defined_stops_the_run() -> None:
    one_class = block(60)
    one_class["target"][:] = 0
    with pytest.raises(TrainingError, match="validation roc_auc"):
        fit(job(), shards()[0], Shard([one_class]), InlineSession())


def test_no_validation_rows_stop_the_run() -> None:
    with pytest.raises(TrainingError, match="validation rows"):
        fit(job(), shards()[0], Shard([]), InlineSession())


def test_every_epoch_is_told() -> None:
    events: list[Event] = []
    session = InlineSession()
    fit(job(), *shards(), session, events.append)
    assert [event.data["epoch"] for event in events if event.kind == "epoch"] == [1, 2, 3, 4]
    assert {"epoch", "train_loss", "val_loss", "val_roc_auc", "lr", "rows_per_s"} <= set(
        session.reports[0])


class Pruned(InlineSession):
    def report(self, metrics: Any) -> None:
        raise StopTraining


def test_a_session_can_stop_the_run() -> None:
    assert fit(job(), *shards(), Pruned()).epochs == 1


def test_a_loop_of_ones_own_runs_through_the_context(tmp_path: Path) -> None:
    (tmp_path / "own_loop.py").write_text(
        "def loop(context):\n"
        "    while not context.done:\n"
        "        total = 0.0\n"
        "        for batch in context.batches():\n"
        "            context.optimizer.zero_grad()\n"
        "            out = context.model(batch)\n"
        "            loss = context.row_losses(out, batch['target']).mean()\n"
        "            loss.backward()\n"
        "            context.optimizer.step()\n"
        "            total += loss.item()\n"
        "        context.finish_epoch(train_loss=total)\n"
    )
    own = job(loop="own_loop:loop", project=str(tmp_path), epochs=6)
    result: FitResult = fit(own, *shards(), InlineSession(tmp_path / "out"))
    assert result.epochs == 6
    assert result.best["val_roc_auc"] > 0.9


def test_a_loop_of_context_steps_does_what_the_spec_says(tmp_path: Path) -> None:
    (tmp_path / "plain_loop.py").write_text(
        "def loop(context):\n"
        "    while not context.done:\n"
        "        for batch in context.batches():\n"
        "            with context.autocast():\n"
        "                out = context.model(batch)\n"
        "            context.step(context.row_losses(out, batch['target']).mean())\n"
        "        context.finish_epoch()\n"
    )
    spec: dict[str, Any] = {"class_weights": "balanced", "clip_norm": 0.1, "precision": "bf16"}
    own = job(loop="plain_loop:loop", project=str(tmp_path), **spec)
    one, other = (fit(j, *shards(), InlineSession()) for j in (own, job(**spec)))
    for name in one.weights:
        assert torch.allclose(one.weights[name], other.weights[name], atol=1e-4), name
    assert [r["lr"] for r in one.history] == [r["lr"] for r in other.history]


@pytest.mark.parametrize(("training", "counted"), [
    ({}, 2), ({"accumulate": 2, "batch_size": 3}, 1), ({"loop": "tests.training.own_loops:plain"}, 2)])
def test_a_row_that_is_alone_passes_a_batch_norm_uncounted(
    training: dict[str, Any], counted: int
) -> None:
    """Torch has no statistics of one row, and raises where it trains on it."""
    normed = job(family="tests.training.normed:Normed", model={},
                 **{"batch_size": 2, "epochs": 2, **training})
    result = fit(normed, *shards(rows=5), InlineSession())
    assert int(result.weights["body.1.num_batches_tracked"]) == counted * result.best_epoch


def test_a_loop_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="missing_loop"):
        fit(job(loop="missing_loop:fn", project=str(tmp_path)), *shards(), InlineSession())


def test_balanced_class_weights_have_mean_one_over_the_rows() -> None:
    counts = torch.tensor([90.0, 10.0], dtype=torch.float64)
    weights = class_weights("balanced", counts, BINARY)
    assert weights is not None
    assert weights.tolist() == pytest.approx([0.5 / 0.9, 0.5 / 0.1])
    assert class_weights("none", counts, BINARY) is None


def test_class_weights_name_classes() -> None:
    with pytest.raises(SpecError, match="maybe"):
        class_weights({"maybe": 2.0}, torch.ones(2), BINARY)
    with pytest.raises(SpecError, match="class task"):
        class_weights("balanced", torch.ones(1), VALUES)


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    spec = TrainingSpec(lr=0.1, warmup=0.2, schedule="cosine")
    rates = [learning_rate(spec, step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1 / 20) and max(rates) == pytest.approx(0.1)
    assert rates[100] == pytest.approx(0, abs=1e-9)
    flat = TrainingSpec(lr=0.1, warmup=0.2, schedule="constant")
    assert learning_rate(flat, 99, 100) == 0.1


def test_an_automatic_batch_grows_with_the_rows() -> None:
    assert [batch_rows(TrainingSpec(), n, BINARY) for n in (50, 14_000, 27_000, 10**7)] == [
        32, 256, 512, 1024]
    assert batch_rows(TrainingSpec(), 10**6, IMAGES) == 256
    assert batch_rows(TrainingSpec(batch_size=77), 10**6, BINARY) == 77
