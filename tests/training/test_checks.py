"""Each check finds the fault that it is for, and nothing else is said of a sound model."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raymill.data.schema import InputSchema
from raymill.training.checks import Subject, verdicts
from raymill.training.rehearsal import rehearse
from raymill.training.testing import TABLE, random_batch

from .samples import VALUES, block, job


class Sound(nn.Module):
    def __init__(self, schema: InputSchema) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, schema.outputs))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        output: Tensor = self.body(batch["numeric"])
        return output


class Flat(Sound):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return super().forward(batch)[:, 0]


class Writes(Sound):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        batch["numeric"] += 1
        return super().forward(batch)


class Unused(Sound):
    def __init__(self, schema: InputSchema) -> None:
        super().__init__(schema)
        self.spare = nn.Linear(2, 2)


class Unseeded(Sound):
    def __init__(self, schema: InputSchema) -> None:
        super().__init__(schema)
        with torch.no_grad():
            self.body[0].bias[0] = torch.Generator().seed() % 1000 / 1000


class Noisy(Sound):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return super().forward(batch) + torch.randn(1)


class OfTheBatch(Sound):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return super().forward({"numeric": batch["numeric"] - batch["numeric"].mean(dim=0)})


class Forgetful(Sound):
    def __init__(self, schema: InputSchema) -> None:
        super().__init__(schema)
        self.kept = torch.rand(1)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return super().forward(batch) * self.kept


class Tied(Sound):
    def __init__(self, schema: InputSchema) -> None:
        super().__init__(schema)
        self.again = self.body[0].weight

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return super().forward(batch) + self.again.sum()


class Deaf(Sound):
    def __init__(self, schema: InputSchema) -> None:
        super().__init__(schema)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return super().forward(batch) * 1e-3 + self.bias


class Raises(Sound):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        raise KeyError("amount")


def _failed(factory: Callable[..., nn.Module]) -> dict[str, str]:
    def make(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return factory(TABLE)

    found = verdicts(Subject(make, TABLE, random_batch(TABLE, 64)))
    return {v.name: str(v.problem) for v in found if not v.ok}


@pytest.mark.parametrize(("factory", "check", "said"), [
    (Flat, "shapes", r"\(1,\) for 1 rows"),
    (Writes, "shapes", "'numeric' changed by forward"),
    (Unused, "gradients", r"none for spare\.bias, spare\.weight"),
    (Unseeded, "seeded", "differs between two models built alike"),
    (Noisy, "alone", "outputs that differ by"),
    (OfTheBatch, "alone", "outputs that differ by"),
    (Forgetful, "saved", "another output after loading"),
    (Tied, "saved", "share memory"),
    (Deaf, "learnt", "a loss that fell from"),
    (Raises, "shapes", "KeyError: 'amount'"),
])
def test_a_planted_fault_is_found(
    factory: Callable[..., nn.Module], check: str, said: str
) -> None:
    import re

    failed = _failed(factory)
    assert check in failed and re.search(said, failed[check])
    assert failed[check].startswith(f"{check}: ")


def test_nothing_is_said_of_a_sound_model() -> None:
    assert _failed(Sound) == {}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "rehearsed_models.py").write_text('''
def stops_early(context):
    for batch in context.batches():
        context.step(context.row_losses(context.model(batch), batch["target"]).mean())
    context.finish_epoch()
''')
    yield tmp_path


def test_a_rehearsal_runs_the_jobs_own_model_and_loop(project: Path) -> None:
    def failed(**training: Any) -> dict[str, str]:
        mine = job(VALUES, project=str(project), **training)
        said = rehearse(mine, block(120, VALUES), block(40, VALUES, seed=1))
        return {v.name: str(v.problem) for v in said if not v.ok}

    assert failed() == {}
    assert list(failed(loop="rehearsed_models:stops_early")) == ["trained"]
