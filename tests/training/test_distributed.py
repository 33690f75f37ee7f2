"""Ray Train runs the loop: exact shards, live epochs, failures that end or are retried."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import ray.data
import torch
from ray.data.block import BlockAccessor

from raymill.errors import SpecError, TrainingError
from raymill.events import Event
from raymill.training.checkpoint import load_weights, newest_good, of_epoch, read_progress
from raymill.training.distributed import train
from raymill.training.loop import fit
from raymill.training.placement import own_shares
from raymill.training.session import InlineSession
from raymill.training.shard import Shard

from .samples import Block, block, job
from .test_parallel import EXACT

pytestmark = [
    pytest.mark.usefixtures("ray_local"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own deprecations
]


@dataclass
class Tensors:
    """What `train` takes of prepared data."""

    blocks: dict[str, list[Block]]

    def tensors(self, split: str) -> list[ray.ObjectRef[Block]]:
        return [ray.put(part) for part in self.blocks[split]]

    def tensor_bytes(self, split: str) -> int:
        return sum(array.nbytes for part in self.blocks[split] for array in part.values())

    def tensor_dataset(self, split: str) -> ray.data.Dataset:
        made = [BlockAccessor.batch_to_arrow_block(part) for part in self.blocks[split]]
        return ray.data.from_arrow(made)


def data(**rows: int) -> Any:
    sizes = {"train": 101, "validation": 40, **rows}
    return Tensors({split: [block(n // 2, seed=1), block(n - n // 2, seed=2)]
                    for split, n in sizes.items()})


def joined(given: Any, split: str) -> Block:
    parts = given.blocks[split]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_shards_hold_every_row_once_in_order() -> None:
    given = data()
    shards = own_shares(given, 3)
    got = [shards[f"train-{rank}"].take_batch(1000)["numeric"] for rank in range(3)]
    assert [len(part) for part in got] == [33, 34, 34]
    assert np.array_equal(np.concatenate(got), joined(given, "train")["numeric"])


def test_two_workers_train_as_one_on_the_same_batches(tmp_path: Path) -> None:
    given, events = data(), list[Event]()
    as_many = {"min": 1, "max": 2}  # both find room
    result = train(job(**EXACT, workers=as_many, cpus_per_worker=1), given, tmp_path / "two",
                   events.append)
    fit(job(**EXACT), Shard([joined(given, "train")]), Shard([joined(given, "validation")]),
        InlineSession(tmp_path / "one"))
    one = load_weights(of_epoch(tmp_path / "one", 3))
    two = load_weights(of_epoch(tmp_path / "two" / "checkpoints", 3))
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)
    assert [event.data["epoch"] for event in events if event.kind == "epoch"] == [1, 2, 3]
    assert result.epochs == 3 and result.checkpoint is not None


def test_rows_too_many_for_the_object_store_are_shared_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raymill.training.placement.ROOM", 0)
    events: list[Event] = []
    result = train(job(epochs=1), data(), tmp_path, events.append)
    assert result.epochs == 1
    assert any("a share of its own" in str(event.data) for event in events)
    with pytest.raises(SpecError, match="object store"):
        train(job(workers={"min": 1, "max": 2}), data(), tmp_path)


def test_a_loss_that_is_not_finite_ends_the_run_and_says_so(tmp_path: Path) -> None:
    given = data()
    given.blocks["train"][0]["numeric"][3, 0] = np.inf
    with pytest.raises(TrainingError, match="the loss must stay finite"):
        train(job(epochs=2), given, tmp_path)


DEADLY = """
import os, pathlib, signal
def loop(context):
    folder = pathlib.Path(context.job.project)
    while not context.done:
        for batch in context.batches():
            out = context.model(batch)
            context.step(context.row_losses(out, batch['target']).mean())
        epoch = context.finish_epoch()['epoch']
        for deadly, name in ((2, 'SIGKILL'), (3, 'SIGSTOP')):
            if epoch == deadly and not (folder / name).exists():
                (folder / name).touch()
                os.kill(os.getpid(), getattr(signal, name))
"""


def test_a_killed_and_a_hanging_worker_are_replaced_and_told(tmp_path: Path) -> None:
    (tmp_path / "deadly_loop.py").write_text(DEADLY)
    events: list[Event] = []
    own = job(loop="deadly_loop:loop", project=str(tmp_path), max_failures=2, watchdog="3s")
    result = train(own, data(), tmp_path / "out", events.append)
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4]
    # A checkpoint that was not yet on the disk takes with it that the run was resumed before it.
    assert {resume["exact"] for resume in result.resumes} == {"bitwise"}
    said = "\n".join(event.data["text"] for event in events if "text" in event.data)
    assert said.count("(bitwise as if never interrupted)") == 2
    assert "rank 0 (process " in said and "its process is stopped" in said
    assert said.count("lost workers (rank 0") == 2


WRONG = """
import torch
def loop(context):
    for batch in context.batches():
        loss = context.row_losses(context.model(batch), batch['target']).mean()
        if context.session.rank == 1:
            loss = loss + (torch.ones(2, 3) @ torch.ones(2, 3)).sum()
        context.step(loss)
"""


def test_an_error_of_the_projects_own_code_ends_the_run_at_once_and_is_told(tmp_path: Path) -> None:
    (tmp_path / "wrong_loop.py").write_text(WRONG)
    events: list[Event] = []
    own = job(workers=2, cpus_per_worker=1, loop="wrong_loop:loop", project=str(tmp_path))
    with pytest.raises(TrainingError, match=r"wrong_loop.py:7, in loop: .*cannot be multiplied"):
        train(own, data(), tmp_path / "out", events.append)
    assert not [event for event in events if "lost workers" in str(event.data)]


SLOW = """
import pathlib, time
def loop(context):
    hurry = pathlib.Path(context.job.project, 'hurry')
    while not context.done:
        for batch in context.batches():
            context.step(context.row_losses(context.model(batch), batch['target']).mean())
            if not hurry.exists():
                time.sleep(0.05)
        context.finish_epoch()
"""


def test_the_first_signal_keeps_a_checkpoint_and_the_same_call_goes_on(tmp_path: Path) -> None:
    """Two workers stop in the middle of an epoch; one goes on with what they left."""
    (tmp_path / "slow_loop.py").write_text(SLOW)
    given, events = data(train=2001), list[Event]()

    def press(event: Event) -> None:
        events.append(event)
        if event.kind == "epoch" and event.data["epoch"] == 1:
            os.kill(os.getpid(), signal.SIGINT)

    two = job(epochs=5, workers=2, cpus_per_worker=1, loop="slow_loop:loop", project=str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        train(two, given, tmp_path, press)
    kept = read_progress(newest_good(tmp_path / "checkpoints") or tmp_path)
    assert 1 <= kept.epoch < 5
    (tmp_path / "hurry").touch()
    result = train(two.with_training(workers=1), given, tmp_path, events.append)
    assert result.epochs == 5 and result.resumes[-1]["exact"] == "samples"
    assert any("workers was 2 and is 1" in str(event.data) for event in events)
