"""A multilayer perceptron over embedded numbers and categories."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from raymill.data.schema import InputSchema

from .embeddings import CategoryEmbedding, PeriodicEmbedding, PiecewiseEmbedding

CATEGORY_SCALE = 0.1  # small at first: a rare category's vector hardly says anything


class MLP(nn.Module):
    """Numbers, their embeddings and those of categories side by side, then `depth` layers of
    `width`. No batch norm: a row's answer does not depend on its batch, in training either."""

    def __init__(
        self,
        schema: InputSchema,
        width: int,
        depth: int,
        dropout: float,
        embedding: int,
        numeric_embedding: Literal["none", "periodic", "piecewise"],
        frequencies: int,
        frequency_scale: float,
    ) -> None:
        super().__init__()
        numbers, sizes = len(schema.numeric), [size for _, size in schema.categorical]
        self.numbers: nn.Module | None = None
        if numbers and numeric_embedding == "periodic":
            self.numbers = PeriodicEmbedding(numbers, frequencies, frequency_scale, embedding)
        elif numbers and numeric_embedding == "piecewise":
            self.numbers = PiecewiseEmbedding(numbers, frequencies, embedding)
        self.categories = CategoryEmbedding(sizes, embedding, CATEGORY_SCALE) if sizes else None
        wide = numbers + embedding * (len(sizes) + (numbers if self.numbers is not None else 0))
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [nn.Linear(wide, width), nn.ReLU(), nn.Dropout(dropout)]
            wide = width
        self.body = nn.Sequential(*layers, nn.Linear(wide, schema.outputs))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        parts: list[Tensor] = []
        if "numeric" in batch:
            parts.append(batch["numeric"])
        if self.numbers is not None:
            parts.append(self.numbers(batch["numeric"]))
        if self.categories is not None:
            parts.append(self.categories(batch["categorical"]))
        output: Tensor = self.body(torch.cat(parts, dim=1))
        return output
