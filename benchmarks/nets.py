"""The plain network that the figures train, the same on both sides."""

from __future__ import annotations

from torch import Tensor, nn

from raymill.data.schema import InputSchema

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


def build(schema: InputSchema) -> nn.Module:
    return Plain()
