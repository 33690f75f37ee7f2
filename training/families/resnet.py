"""A residual network for tables."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raymill.data.schema import InputSchema

from .embeddings import Columns, NumericEmbedding


class _Block(nn.Module):
    """norm, wide layer, ReLU, dropout, layer, dropout; added to what came in."""

    def __init__(self, width: int, hidden: int, dropout: float, residual_dropout: float) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden, width), nn.Dropout(residual_dropout))

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = x + self.inner(x)
        return added


class ResNet(nn.Module):
    """The row as for `mlp`, `blocks` residual blocks of `width`, whose inner layer is
    `hidden_factor` times as wide, and a normalised linear head.

    Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data" (2021), with layer norm in
    the place of batch norm, so that a row does not depend on its batch, however many workers train.
    """

    def __init__(
        self,
        schema: InputSchema,
        width: int,
        blocks: int,
        hidden_factor: float,
        dropout: float,
        residual_dropout: float,
        embedding: int,
        numeric_embedding: NumericEmbedding,
        frequencies: int,
        frequency_scale: float,
    ) -> None:
        super().__init__()
        self.columns = Columns(schema, embedding, numeric_embedding, frequencies, frequency_scale)
        hidden = max(1, round(width * hidden_factor))
        self.body = nn.Sequential(
            nn.Linear(self.columns.width, width),
            *(_Block(width, hidden, dropout, residual_dropout) for _ in range(blocks)),
            nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, schema.outputs))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        output: Tensor = self.body(torch.cat(self.columns(batch), dim=1))
        return output
