"""What only a GPU shows; skipped where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from raymill.errors import TrainingError
from raymill.events import ignore
from raymill.training.loop import fit
from raymill.training.moving import ahead, moved, on_device_if_small
from raymill.training.session import InlineSession
from raymill.training.shard import Shard
from raymill.training.trainer import Trainer

from .samples import block, job, shards

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def session(folder: Path | None = None) -> InlineSession:
    return InlineSession(folder, device=torch.device("cuda", 0))


@pytest.mark.parametrize("training", [
    {"precision": "fp32"}, {"precision": "bf16"}, {"precision": "fp16"}, {"compile": True},
    {"ema": 0.9, "accumulate": 2}, {"optimizer": "muon"}, {"optimizer": "sgd", "lr": 0.05},
])
def test_each_way_of_training_learns_and_goes_on(tmp_path: Path, training: dict[str, Any]) -> None:
    made = job(epochs=15, gpu="auto", **training)
    result = fit(made, *shards(), session(tmp_path))
    assert result.best["val_roc_auc"] > 0.9
    assert fit(made, *shards(), session(tmp_path)).history == result.history


def test_an_automatic_batch_fits_in_memory() -> None:
    big = Shard([block(200_000)])
    trainer = Trainer(job(batch_size="auto", gpu="auto"), big, shards()[1], session(), ignore)
    assert trainer.feed.sizes == [2048]  # the largest power of two below a 64th of the rows


def test_rows_live_on_the_gpu_where_they_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    shard, device = shards()[0], torch.device("cuda", 0)
    there = on_device_if_small(shard, device)
    assert all(tensor.is_cuda for tensor in there.tensors.values())
    for one, other in zip(there.batches(3, 32), shard.batches(3, 32), strict=True):
        assert torch.equal(one["numeric"].cpu(), other["numeric"])
    monkeypatch.setattr("raymill.training.moving.RESIDENT", 0)
    assert on_device_if_small(shard, device) is shard
    assert moved(next(shard.batches(0, 8)), device)["numeric"].is_cuda


def test_batches_that_come_beside_the_steps_are_those_of_the_shard() -> None:
    shard, device = shards()[0], torch.device("cuda", 0)
    busy = torch.randn(4096, 4096, device=device)
    for source in (shard, shard.on(device)):
        came = ahead(source.batches(3, 32), device)
        for there, here in zip(came, shard.batches(3, 32), strict=True):
            busy @ busy
            assert all(torch.equal(there[name].cpu(), here[name]) for name in here)


def test_what_is_not_finite_is_named_by_its_step_and_column() -> None:
    rows = block(200)
    rows["numeric"][17, 1] = float("inf")
    train = Shard([rows])
    step = train.order(0).tolist().index(17) // 29 + 1
    with pytest.raises(TrainingError, match=rf"step {step} .*column b; .*: 17\."):
        fit(job(gpu="auto", accumulate=4), train, shards()[1], session())
