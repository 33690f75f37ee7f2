"""Training needs no compiler: torch's is imported by nobody that does not compile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from raymill.training.eager import eager

_FITS = """
import sys
from raymill.training.loop import fit
from raymill.training.session import InlineSession
from tests.training.samples import job, shards
for optimizer in ("adamw", "sgd", "muon"):
    fit(job(epochs=1, optimizer=optimizer), *shards(), InlineSession())
assert not {"torch._dynamo", "sympy"} & set(sys.modules)
"""
_STEPS = """
import sys
import torch
from raymill.training.eager import eager

def stepped(kind):
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 4, bias=False)
    optimizer = kind(layer.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
    return layer.weight.detach(), optimizer.state_dict()["param_groups"]

for kind in (torch.optim.AdamW, torch.optim.Muon, torch.optim.SGD):
    own, groups = stepped(eager(kind))
    assert ("torch._dynamo" in sys.modules) == (kind is not torch.optim.AdamW)
    for other in (kind, eager(kind)):  # the first of them imports the compiler
        weights, expected = stepped(other)
        assert torch.equal(own, weights) and groups == expected, kind
    assert "torch._dynamo" in sys.modules
"""


def _run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_a_training_imports_no_compiler() -> None:
    _run(_FITS)


def test_its_steps_are_the_optimizers_own_with_and_without_the_compiler() -> None:
    _run(_STEPS)


def test_a_step_takes_a_closure_and_runs_hooks() -> None:
    layer = nn.Linear(2, 1)
    optimizer = eager(torch.optim.SGD)(layer.parameters(), lr=0.1)  # type: ignore[arg-type]
    seen = []
    optimizer.register_step_post_hook(lambda *_: seen.append(1))

    def closure() -> float:
        optimizer.zero_grad()
        loss = layer(torch.ones(1, 2)).sum()
        with torch.enable_grad():
            layer(torch.ones(1, 2)).sum().backward()
        return float(loss.detach())

    assert isinstance(optimizer.step(closure), float) and seen == [1]
