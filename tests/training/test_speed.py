"""Batches as large as fit, compilation that falls back, and where a step's time goes."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from raymill.errors import UsageError
from raymill.events import Event, ignore
from raymill.training.batching import largest_fitting, most_rows
from raymill.training.compiling import compile_or_warn
from raymill.training.precision import Precision
from raymill.training.profile import measure, profile, summary
from raymill.training.session import InlineSession
from raymill.training.trainer import Trainer

from .samples import job, prepared, shards

CPU = Precision(torch.device("cpu"))


class Memory:
    """Runs out of memory above a number of rows."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.tried: list[int] = []

    def __call__(self, rows: int) -> None:
        self.tried.append(rows)
        if rows > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")


def test_the_batch_grows_until_memory_runs_out() -> None:
    memory = Memory(5000)
    assert largest_fitting(1024, 100_000, memory) == 4096
    assert memory.tried == [2048, 4096, 8192]


def test_the_batch_grows_to_a_64th_of_the_rows_at_most() -> None:
    assert largest_fitting(1024, most_rows(1_000_000), Memory(10**9)) == 8192
    assert largest_fitting(32, most_rows(50), Memory(10**9)) == 32


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        output: Tensor = self.layer(batch["numeric"])
        return output


def test_a_compiler_that_fails_is_told_and_gone_without() -> None:
    def broken(self: nn.Module, **options: object) -> None:
        def refuse(*args: object) -> None:
            raise RuntimeError("no C++ compiler here\nmore")

        self._compiled_call_impl = refuse

    model, events = Plain(), list[Event]()
    before = model.layer.weight.detach().clone()
    batch = {"numeric": torch.ones(4, 2)}
    state = torch.get_rng_state()
    with patch.object(nn.Module, "compile", broken):
        assert not compile_or_warn(model, batch, CPU, events.append)
    assert [event.kind for event in events] == ["warning"]
    assert "RuntimeError: no C++ compiler here" in events[0].data["text"]
    assert model(batch).shape == (4, 1)
    assert torch.equal(model.layer.weight, before) and model.layer.weight.grad is None
    assert torch.equal(torch.get_rng_state(), state)


def test_a_profile_says_where_a_steps_time_goes(tmp_path: Path) -> None:
    found = measure(Trainer(job(), *shards(), InlineSession(), ignore), tmp_path)
    assert sum(found.shares.values()) == pytest.approx(1)
    assert min(found.shares[phase] for phase in ("data", "forward", "backward", "optimizer")) > 0
    assert json.loads(found.trace.read_text())["traceEvents"]
    text = summary(found)
    assert "ms a step of" in text and "  optimizer " in text
    assert len(text.splitlines()) < 30


def test_a_loop_of_ones_own_is_not_profiled(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="raymill's own loop"):
        profile(job(loop="mine:loop", project=str(tmp_path)), prepared(tmp_path), tmp_path)
