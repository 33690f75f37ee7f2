"""The plain network that the figures train, the same on both sides."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor, nn

from raymill.data.schema import InputSchema
from raymill.training.context import LoopContext

FEATURES = 28
SCHEMA = InputSchema(
    numeric=tuple(f"x{i}" for i in range(FEATURES)), categorical=(), image=None, task="binary",
    classes=("no", "yes"),
)


class Plain(nn.Module):
    """28-256-256-1."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(FEATURES, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1)
        )

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.layers(batch["numeric"])


class Marking(Plain):
    """Writes the time into the file `mark` when it is called after its first step."""

    def __init__(self, mark: str) -> None:
        super().__init__()
        self.mark, self.calls = Path(mark), 0

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        if self.training:
            self.calls += 1
            if self.calls == 2:
                self.mark.write_text(str(time.time()))
        return super().forward(batch)


def marking(schema: InputSchema, mark: str) -> nn.Module:
    return Marking(mark)


def build(schema: InputSchema) -> nn.Module:
    return Plain()


def build_by_rank(schema: InputSchema) -> nn.Module:
    """A planted fault: weights that the rank decides."""
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    torch.manual_seed(rank)
    return Plain()


def loop_without_all_reduce(context: LoopContext) -> None:
    """A planted fault: steps on the model inside DDP, so that no gradient is exchanged."""
    inner = getattr(context.model, "module", context.model)
    while not context.done:
        for batch in context.batches():
            context.step(context.row_losses(inner(batch), batch["target"]).mean())
        context.finish_epoch()
