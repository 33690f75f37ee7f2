"""A run that was interrupted anywhere goes on exactly, or says how it does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from raymill.events import Event
from raymill.training.checkpoint import (
    MODEL,
    OPTIMIZER,
    at,
    find,
    numbers,
    read_group,
    read_progress,
)
from raymill.training.loop import fit
from raymill.training.result import FitResult
from raymill.training.session import InlineSession, Interrupted

from .samples import job, shards

STEPS = 7  # of an epoch: 200 rows in batches of 32


def digest(folder: Path) -> str:
    """sha256 over the sorted (name, dtype, shape, bytes) of weights and optimizer."""
    path, total = at(folder, find(folder).number), hashlib.sha256()
    for group in (MODEL, OPTIMIZER):
        for name, tensor in sorted(read_group(path, group).items()):
            total.update(f"{group} {name} {tensor.dtype} {list(tensor.shape)}".encode())
            total.update(tensor.numpy().tobytes())
    return total.hexdigest()


class Stopped(InlineSession):
    """A session that is asked to stop after a number of steps."""

    def __init__(self, folder: Path, steps: int) -> None:
        super().__init__(folder)
        self.left = steps

    def alive(self, typical_s: Callable[[], float]) -> None:
        self.left -= 1
        self.stopping = self.left <= 0


def run(folder: Path, *stops: int, **training: Any) -> tuple[FitResult, list[str]]:
    """A run interrupted after each of `stops` further steps; its result, and what it said."""
    said: list[str] = []

    def hear(event: Event) -> None:
        if event.kind in ("note", "warning"):
            said.append(event.data["text"])

    for stop in stops:
        with pytest.raises(Interrupted):
            fit(job(**training), *shards(), Stopped(folder, stop), hear)
    return fit(job(**training), *shards(), InlineSession(folder), hear), said


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FitResult]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)[0]


@pytest.mark.parametrize("stops", [(3,), (STEPS + 2,), (1, 1, 9), (STEPS - 1,), (2 * STEPS,)])
def test_a_run_stopped_within_epochs_is_bitwise_the_same(
    tmp_path: Path, whole: tuple[Path, FitResult], stops: tuple[int, ...]
) -> None:
    result, said = run(tmp_path, *stops)
    assert digest(tmp_path) == digest(whole[0])
    assert [row["train_loss"] for row in result.history] == [
        row["train_loss"] for row in whole[1].history]
    assert [resume["exact"] for resume in result.resumes] == ["bitwise"] * len(stops)
    assert len([text for text in said if "bitwise as if never interrupted" in text]) == len(stops)


def test_checkpoints_within_an_epoch_come_every_so_many_steps(tmp_path: Path) -> None:
    class Killed(InlineSession):
        steps = 0

        def alive(self, typical_s: Callable[[], float]) -> None:
            self.steps += 1
            if self.steps == 6:
                raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fit(job(checkpoint_every=2), *shards(), Killed(tmp_path))
    progress = read_progress(at(tmp_path, find(tmp_path).number))
    assert (progress.epoch, progress.position.steps) == (0, 4)


def test_a_checkpoint_within_an_epoch_changes_no_weight(
    tmp_path: Path, whole: tuple[Path, FitResult]
) -> None:
    run(tmp_path, checkpoint_every=2)
    assert digest(tmp_path) == digest(whole[0])


def test_a_run_falls_back_to_the_newest_good_checkpoint_and_names_the_damaged(
    tmp_path: Path, whole: tuple[Path, FitResult]
) -> None:
    with pytest.raises(Interrupted):
        fit(job(checkpoint_every=2), *shards(), Stopped(tmp_path, 5))
    newest = at(tmp_path, numbers(tmp_path)[0])
    (newest / "model.safetensors").write_bytes(b"")
    _, said = run(tmp_path)
    assert any("damaged" in text and newest.name in text for text in said), said
    assert any("and 4 steps" in text for text in said), said
    assert digest(tmp_path) == digest(whole[0])


def test_a_run_without_a_good_checkpoint_says_that_it_begins_again(
    tmp_path: Path, whole: tuple[Path, FitResult]
) -> None:
    with pytest.raises(Interrupted):
        fit(job(), *shards(), Stopped(tmp_path, 5))
    (at(tmp_path, 1) / "manifest.json").unlink()
    result, said = run(tmp_path)
    assert any("training starts from the beginning" in text for text in said), said
    assert result.resumes == [] and digest(tmp_path) == digest(whole[0])


def test_a_lost_best_epoch_is_told_and_looked_for_anew(tmp_path: Path) -> None:
    session = Stopped(tmp_path, 3 * STEPS + 4)
    with pytest.raises(Interrupted):
        fit(job(lr=1e-3, patience=None), *shards(), session)
    newest = numbers(tmp_path)[0]
    best = read_progress(at(tmp_path, newest)).best_checkpoint
    assert best != newest
    (at(tmp_path, best) / "model.safetensors").unlink()
    result, said = run(tmp_path, lr=1e-3, patience=None)
    assert any("best epoch's checkpoint is damaged" in text for text in said), said
    assert result.checkpoint is not None and read_group(result.checkpoint, MODEL)


def test_the_random_state_goes_on_in_a_loop_that_draws(tmp_path: Path) -> None:
    """The dropout of `job` draws in every step: without its state the digests would differ."""
    assert job().params["dropout"] > 0
    torch.manual_seed(99)
    one = run(tmp_path / "one", 3)
    torch.manual_seed(7)
    other = run(tmp_path / "other", 5)
    assert digest(tmp_path / "one") == digest(tmp_path / "other")
    assert one[0].history[-1]["val_loss"] == other[0].history[-1]["val_loss"]
