"""What stops a run is explained with the batch, the place and the cure."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
import torch
from ray.train import WorkerGroupError

from raymill.errors import TrainingError
from raymill.training.failures import is_out_of_memory, lost
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
        "        context.step(loss * float('inf') if loss > 0 else loss)\n")
    own = job(loop="sharp_loop:loop", project=str(tmp_path))
    with pytest.raises(TrainingError, match="first in the gradient of"):
        fit(own, *shards(), InlineSession(tmp_path / "out"))
