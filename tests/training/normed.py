"""A model with a batch norm, for tests of what workers do with its statistics."""

from __future__ import annotations

from torch import Tensor, nn

from raymill.data.schema import InputSchema


class Normed(nn.Module):
    def __init__(self, schema: InputSchema) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        output: Tensor = self.body(batch["numeric"])
        return output
