"""Data parallel training is exact: ranks with unlike numbers of rows weigh every row alike."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from raymill.training.batching import batch_rows
from raymill.training.checkpoint import load_weights, of_epoch
from raymill.training.failures import last_line
from raymill.training.loop import fit
from raymill.training.session import InlineSession
from raymill.training.shard import Batch, Shard

from .samples import block, job

EXACT = {"model": {"width": 16, "depth": 1, "dropout": 0.0, "embedding": 4}, "epochs": 3}


class Joined(Shard):
    """One worker's view of several shards, in the global batches that their ranks would take."""

    def __init__(self, parts: list[Shard], batch_size: int) -> None:
        super().__init__([{n: t.numpy() for n, t in part.tensors.items()} for part in parts])
        self.parts = parts
        self.steps = -(-self.rows // batch_size)

    def batches(self, epoch: int, batch_size: int, *, shuffle: bool = True, start: int = 0,
                stretch: int = 0, left: torch.Tensor | None = None, rank: int = 0, ranks: int = 1
                ) -> Iterator[Batch]:
        feeds = [p.batches(epoch, -(-p.rows // self.steps), shuffle=shuffle) for p in self.parts]
        for _ in range(self.steps):
            got = [batch for feed in feeds if (batch := next(feed, None)) is not None]
            yield {name: torch.cat([batch[name] for batch in got]) for name in got[0]}


def run_ranks(folder: Path, rows: list[int], **training: Any) -> list[dict[str, Any]]:
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps(training))
    script = Path(__file__).with_name("two_ranks.py")
    ranks = [
        subprocess.Popen([sys.executable, str(script), str(rank), str(folder), *map(str, rows)])
        for rank in range(len(rows))
    ]
    assert [rank.wait(timeout=150) for rank in ranks] == [0] * len(rows)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(len(rows))]


@pytest.mark.parametrize("rows", [[71, 30], [90, 3]])
def test_uneven_ranks_train_as_one_worker_on_the_same_batches(
    tmp_path: Path, rows: list[int]
) -> None:
    results = run_ranks(tmp_path / "ranks", rows, **EXACT)
    parts = [Shard([block(n, seed=rank)], rank) for rank, n in enumerate(rows)]
    checks = Joined([Shard([block(20, seed=rank)]) for rank in range(len(rows))], 10**6)
    alone = job(**EXACT)
    train = Joined(parts, batch_rows(alone.training, sum(rows), alone.schema))
    expected = fit(alone, train, checks, InlineSession(tmp_path / "alone"))
    one, other = (load_weights(of_epoch(folder, 3)) for folder in
                  (tmp_path / "alone", tmp_path / "ranks" / "checkpoints"))
    for name in one:
        assert torch.allclose(one[name], other[name], atol=1e-5), name
    for result in results:  # every rank knows the exact metrics of all rows
        assert result["best"]["val_roc_auc"] == pytest.approx(expected.best["val_roc_auc"])
        assert result["best"]["train_loss"] == pytest.approx(expected.best["train_loss"], rel=1e-4)


def test_balanced_weights_count_the_classes_of_all_ranks(tmp_path: Path) -> None:
    results = run_ranks(tmp_path / "ranks", [40, 25], **EXACT, class_weights="balanced")
    assert results[0]["best"]["val_loss"] == pytest.approx(results[1]["best"]["val_loss"])


def test_a_worker_without_rows_is_refused_on_every_rank(tmp_path: Path) -> None:
    results = run_ranks(tmp_path / "ranks", [40, 0], **EXACT)
    assert all("needs a training row" in result["error"] for result in results)


def test_ranks_grow_the_same_trees_together(tmp_path: Path) -> None:
    trees = {"family": "gbdt", "model": {"rounds": 40, "learning_rate": 0.2, "min_rows": 5}}
    results = run_ranks(tmp_path / "ranks", [171, 130], **trees)
    again = run_ranks(tmp_path / "again", [171, 130], **trees)
    assert results[0] == results[1] and results[0]["history"] == again[0]["history"]
    parts = [block(n, seed=rank) for rank, n in enumerate([171, 130])]
    checks = [block(20, seed=rank) for rank in range(2)]
    alone = fit(job(**trees), Shard(parts), Shard(checks), InlineSession())
    ours, theirs = results[0]["best"], alone.best
    assert ours["val_roc_auc"] == pytest.approx(theirs["val_roc_auc"], abs=0.03)
    assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=0.2)
    for path in (tmp_path / "ranks" / "checkpoints").glob("ckpt-*"):
        assert torch.equal(load_weights(path)["_extra_state"],
                           load_weights(tmp_path / "again" / "checkpoints" / path.name)
                           ["_extra_state"])


def test_an_error_without_text_is_told_by_its_kind() -> None:
    assert last_line(RuntimeError()) == "RuntimeError"
    assert last_line(ValueError("a\nb\n")) == "b"
