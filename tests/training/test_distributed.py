"""Ray Train runs the loop: exact shards, live epochs, failures that end or are retried."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import ray.data
import torch
from ray.data.block import BlockAccessor

from raymill.errors import TrainingError
from raymill.events import Event
from raymill.training.batching import batch_rows
from raymill.training.checkpoint import load_weights, of_epoch
from raymill.training.distributed import shards, train
from raymill.training.loop import fit
from raymill.training.session import InlineSession
from raymill.training.shard import Shard

from .samples import Block, block, job
from .test_parallel import EXACT, Joined

pytestmark = [
    pytest.mark.usefixtures("ray_local"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own deprecations
]


@dataclass
class Tensors:
    """What `train` takes of prepared data."""

    blocks: dict[str, list[Block]]

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
    made = shards(given, 3)
    got = [made[f"train-{rank}"].take_batch(1000)["numeric"] for rank in range(3)]
    assert [len(part) for part in got] == [33, 34, 34]
    assert np.array_equal(np.concatenate(got), joined(given, "train")["numeric"])


def test_two_workers_train_as_one_on_the_same_batches(tmp_path: Path) -> None:
    given, events = data(), list[Event]()
    result = train(job(**EXACT, workers=2, cpus_per_worker=1), given, tmp_path / "two",
                   events.append)
    whole = joined(given, "train")
    parts = [Shard([{n: a[low:high] for n, a in whole.items()}], rank)
             for rank, (low, high) in enumerate([(0, 50), (50, 101)])]
    alone = job(**EXACT)
    one_worker = Joined(parts, batch_rows(alone.training, 101, alone.schema))
    fit(alone, one_worker, Shard([joined(given, "validation")]), InlineSession(tmp_path / "one"))
    one = load_weights(of_epoch(tmp_path / "one", 3))
    two = load_weights(of_epoch(tmp_path / "two" / "checkpoints", 3))
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)
    assert [event.data["epoch"] for event in events if event.kind == "epoch"] == [1, 2, 3]
    assert result.epochs == 3 and result.checkpoint is not None

    events.clear()
    again = train(job(**EXACT, workers=2, cpus_per_worker=1), given, tmp_path / "two",
                  events.append)
    assert again == result
    assert not [event for event in events if event.kind == "epoch"]


def test_a_loss_that_is_not_finite_ends_the_run_and_says_so(tmp_path: Path) -> None:
    given = data()
    given.blocks["train"][0]["numeric"][3, 0] = np.inf
    with pytest.raises(TrainingError, match="the loss must stay finite"):
        train(job(epochs=2), given, tmp_path)


def test_a_killed_worker_is_replaced_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "deadly_loop.py").write_text(
        "import os, pathlib, signal\n"
        "def loop(context):\n"
        "    marker = pathlib.Path(context.job.project) / 'killed'\n"
        "    while not context.done:\n"
        "        for batch in context.batches():\n"
        "            context.optimizer.zero_grad()\n"
        "            out = context.model(batch)\n"
        "            context.row_losses(out, batch['target']).mean().backward()\n"
        "            context.optimizer.step()\n"
        "        row = context.finish_epoch()\n"
        "        if row['epoch'] == 2 and not marker.exists():\n"
        "            marker.touch()\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    events: list[Event] = []
    own = job(loop="deadly_loop:loop", project=str(tmp_path), max_failures=1)
    result = train(own, data(), tmp_path / "out", events.append)
    assert (tmp_path / "killed").exists()
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4]
    assert any("goes on after epoch 2" in str(event.data) for event in events)
