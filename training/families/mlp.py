"""A multilayer perceptron over embedded numbers and categories."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raymill.data.schema import InputSchema

from .embeddings import Columns, NumericEmbedding


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
        numeric_embedding: NumericEmbedding,
        frequencies: int,
        frequency_scale: float,
    ) -> None:
        super().__init__()
        self.columns = Columns(schema, embedding, numeric_embedding, frequencies, frequency_scale)
        wide = self.columns.width
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [nn.Linear(wide, width), nn.ReLU(), nn.Dropout(dropout)]
            wide = width
        self.body = nn.Sequential(*layers, nn.Linear(wide, schema.outputs))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        output: Tensor = self.body(torch.cat(self.columns(batch), dim=1))
        return output
