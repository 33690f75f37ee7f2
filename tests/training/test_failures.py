"""What stops a run is explained with the batch, the place and the cure."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
import torch
from ray.train import WorkerGroupError

from raymill.errors import TrainingError
from raymill.training.failures import is_out_of_memory, lost, may_pass, raised
from raymill.training.loop import fit
from raymill.training.session import InlineSession
from raymill.training.shard import Shard

from .samples import block, job, shards


@pytest.mark.parametrize("error", [
    MemoryError("no more"), torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
])
def test_every_way_to_run_out_of_memory_is_known(error: Exception) -> None:
    assert is_out_of_memory(error) and not is_out_of_memory(RuntimeError("shapes differ"))


def test_a_batch_that_does_not_fit_is_told_with_its_rows_and_the_cure(tmp_path: Path) -> None:
    (tmp_path / "greedy_loop.py").write_text("def loop(context):\n    raise MemoryError('no')\n")
    own = job(loop="greedy_loop:loop", project=str(tmp_path))
    with pytest.raises(TrainingError, match=r"batch_size is 32, \d+ rows .* Lower") as told:
        fit(own, *shards(), InlineSession())
    assert isinstance(told.value.__cause__, MemoryError)


@pytest.mark.parametrize(("family", "place", "cure"), [
    ("mlp", "raymill.training.trainer.build_model", "batch_size or the model's size"),
    ("gbdt", "raymill.training.boosting.matrix", "model.bins"),
])
def test_memory_that_runs_out_before_the_first_step_is_told(
    monkeypatch: pytest.MonkeyPatch, family: str, place: str, cure: str
) -> None:
    def full(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(place, full)
    with pytest.raises(TrainingError, match=cure):
        fit(job(family=family, model={}), *shards(), InlineSession())


@pytest.mark.parametrize(("error", "passes"), [
    (RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer"), True),
    (torch.distributed.DistBackendError("NCCL error in: ..."), True),
    (OSError(5, "Input/output error"), True),
    (ray.exceptions.RayActorError(), True),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x2 and 3x1)"), False),
    (NameError("name 'nm' is not defined"), False),
    (KeyError("amount"), False),
])
def test_an_error_of_the_codes_own_is_not_tried_again(error: Exception, passes: bool) -> None:
    assert may_pass(error) is passes


def test_parameters_without_gradients_are_told_with_the_cure() -> None:
    said = RuntimeError("Expected to have finished reduction in the prior iteration. This error "
                        "indicates that your module has parameters that were not used in producing "
                        "loss.\nIn addition, you can set TORCH_DISTRIBUTED_DEBUG")
    (problem,) = raised(said, 1).problems
    assert problem.got == "some that got none on rank 1" and "check SPEC --train" in problem.cure


def test_a_worker_that_rays_monitor_ended_is_told_as_out_of_memory() -> None:
    killed = ray.exceptions.OutOfMemoryError("Task was killed due to memory pressure")
    told = str(lost(WorkerGroupError("lost", {1: killed}), job()))
    assert "Ray's memory monitor ended rank 1" in told and "batch_size is 32" in told


def test_lost_workers_are_told_by_rank() -> None:
    told = str(lost(WorkerGroupError("lost", {1: RuntimeError("first\nlast")}), job()))
    assert "lose its workers 3 times" in told and "rank 1: last" in told


def test_what_is_not_finite_is_named_by_step_row_and_column(tmp_path: Path) -> None:
    rows = block(200)
    rows["numeric"][17, 1] = float("inf")
    train = Shard([rows])
    step = train.order(0).tolist().index(17) // 29 + 1  # 200 rows are 7 steps of 29
    with pytest.raises(TrainingError, match=rf"epoch 1, step {step} .*column b; .*: 17\."):
        fit(job(), train, shards()[1], InlineSession(tmp_path))


def test_a_bad_gradient_stops_the_run_before_its_step(tmp_path: Path) -> None:
    (tmp_path / "sharp_loop.py").write_text(
        "import torch\n"
        "def loop(context):\n"
        "    for batch in context.batches():\n"
        "        loss = context.row_losses(context.model(batch), batch['target']).mean()\n"
        "        context.step(loss + (loss * 0).sqrt())\n")
    own = job(loop="sharp_loop:loop", project=str(tmp_path))
    with pytest.raises(TrainingError, match="first in the gradient of"):
        fit(own, *shards(), InlineSession(tmp_path / "out"))


def test_what_is_not_finite_is_named_in_a_loop_of_ones_own(tmp_path: Path) -> None:
    rows = block(200)
    rows["numeric"][17, 1] = float("inf")
    train = Shard([rows])
    step = train.order(0).tolist().index(17) // 29 + 1
    own = job(loop="tests.training.own_loops:plain", clip_norm=None)
    with pytest.raises(TrainingError, match=rf"epoch 1, step {step} .*column b; .*: 17\."):
        fit(own, train, shards()[1], InlineSession(tmp_path))


def test_a_loss_of_many_numbers_is_refused_with_its_shape() -> None:
    own = job(loop="tests.training.own_loops:unreduced")
    with pytest.raises(TrainingError, match=r"one number.*a tensor of shape \[\d+\]"):
        fit(own, *shards(), InlineSession())


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("row", [17, 0])
def test_a_loss_that_is_looked_at_late_names_its_own_step_and_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int, row: int
) -> None:
    """As on a GPU: a loss is looked at when the next is there, that of a last step in the end."""
    for place in ("finite", "stepper"):
        monkeypatch.setattr(f"raymill.training.{place}.looks_late", lambda loss: True)
    rows, order = block(200), Shard([block(200)]).order(0).tolist()
    bad = order[-1] if row == 0 else order[row]  # of the epoch's last step, or of its first
    rows["numeric"][bad, 1] = float("inf")
    step = order.index(bad) // 29 + 1
    made = job(accumulate=accumulate, clip_norm=None)
    with pytest.raises(TrainingError, match=rf"epoch 1, step {step} .*column b; .*: {bad}\."):
        fit(made, Shard([rows]), shards()[1], InlineSession(tmp_path))
    assert not list(tmp_path.glob("ckpt-*"))
