"""Batches as large as fit, compilation that falls back, and where a step's time goes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from raymill.data.schema import InputSchema
from raymill.errors import UsageError
from raymill.events import Event, ignore
from raymill.training.batching import largest_fitting, most_rows, rows_at_once
from raymill.training.compiling import compile_or_warn
from raymill.training.loop import fit
from raymill.training.precision import Precision
from raymill.training.profile import measure, profile, summary
from raymill.training.session import InlineSession
from raymill.training.testing import IMAGES, TABLE
from raymill.training.trainer import Trainer

from .samples import BINARY, job, prepared, shards

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
    assert memory.tried == [1024, 2048, 4096, 8192]


def test_the_batch_shrinks_where_the_first_does_not_fit() -> None:
    assert largest_fitting(256, 100_000, Memory(40)) == 32
    with pytest.raises(torch.OutOfMemoryError, match="one row"):
        largest_fitting(256, 100_000, Memory(0))


def test_few_large_rows_pass_through_a_model_at_once() -> None:
    photos = replace(IMAGES, image=(3, 224, 224))
    assert rows_at_once(photos) == 13 and rows_at_once(photos, least=64) == 64
    assert rows_at_once(TABLE) == 8192
    assert rows_at_once(replace(IMAGES, image=(3, 4096, 4096))) == 1


def test_an_evaluation_takes_no_more_rows_at_once_than_a_step_where_they_are_large() -> None:
    large = replace(BINARY, image=(3, 224, 224))
    taken: list[int] = []

    class Looks(nn.Module):
        def __init__(self, schema: InputSchema) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            taken.append(len(batch["numeric"]))
            output: Tensor = self.layer(batch["numeric"])
            return output

    with patch("raymill.training.trainer.build_model", lambda job: Looks(large)):
        fit(replace(job(epochs=1), schema=large), *shards(), InlineSession())
    assert max(taken) == 29  # 200 rows are 7 steps of 29; there are 60 validation rows


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


def test_a_model_with_a_batch_norm_is_compiled_on_rows_as_they_come() -> None:
    """Forward of one row raises in a batch norm, and is compiled apart from that of several."""
    tried: list[tuple[int, bool]] = []

    def compiled(self: nn.Module, **options: object) -> None:
        def call(batch: dict[str, Tensor]) -> Tensor:
            tried.append((len(batch["numeric"]), self.training))
            output: Tensor = self.forward(batch)
            return output

        self._compiled_call_impl = call

    events: list[Event] = []
    made = job(family="tests.training.normed:Normed", model={}, compile=True, epochs=1)
    with patch.object(nn.Module, "compile", compiled):
        trainer = Trainer(made, *shards(), InlineSession(), events.append)
    assert not events and tried == [(29, True), (29, False)]
    assert trainer.model.training


def test_a_profile_says_where_a_steps_time_goes(tmp_path: Path) -> None:
    found = measure(Trainer(job(), *shards(), InlineSession(), ignore), tmp_path)
    assert sum(found.shares.values()) == pytest.approx(1)
    assert min(found.shares[phase] for phase in ("data", "forward", "backward", "optimizer")) > 0
    assert json.loads(found.trace.read_text())["traceEvents"]
    text = summary(found)
    assert "ms a step of" in text and "  optimizer " in text
    assert len(text.splitlines()) < 30


def test_a_loop_of_ones_own_and_trees_are_not_profiled(tmp_path: Path) -> None:
    for made in (job(loop="mine:loop", project=str(tmp_path)), job(family="gbdt")):
        with pytest.raises(UsageError, match="raymill's own loop"):
            profile(made, prepared(tmp_path), tmp_path)
