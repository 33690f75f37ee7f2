"""A transformer over a table's columns: each column is a token."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from raymill.data.schema import InputSchema

from .attention import TransformerBlock
from .embeddings import (
    CategoryEmbedding,
    NumericEmbedding,
    PeriodicEmbedding,
    PiecewiseEmbedding,
    WordMeans,
)


class _Tokens(nn.Module):
    """The row as tokens `[B, 1 + N + C + T, W]`: a learnt first one, which gathers the answer, then a
    token a number (times a learnt vector, or embedded), a category and a text (the mean of its words),
    each with a bias."""

    def __init__(
        self,
        schema: InputSchema,
        width: int,
        numeric_embedding: NumericEmbedding,
        frequencies: int,
        frequency_scale: float,
    ) -> None:
        super().__init__()
        numbers, sizes = len(schema.numeric), [size for _, size in schema.categorical]
        columns = numbers + len(sizes) + len(schema.text)
        bound = 1 / math.sqrt(width)
        self.width = width
        self.first = nn.Parameter(torch.empty(1, 1, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(columns, width).uniform_(-bound, bound))
        self.weight: nn.Parameter | None = None
        self.numbers: nn.Module | None = None
        if numbers and numeric_embedding == "periodic":
            self.numbers = PeriodicEmbedding(numbers, frequencies, frequency_scale, width)
        elif numbers and numeric_embedding == "piecewise":
            self.numbers = PiecewiseEmbedding(numbers, frequencies, width)
        elif numbers:
            self.weight = nn.Parameter(torch.empty(numbers, width).uniform_(-bound, bound))
        self.categories = CategoryEmbedding(sizes, width, bound) if sizes else None
        self.texts = WordMeans(schema, width) if schema.text else None

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        columns: list[Tensor] = []
        if self.weight is not None:
            columns.append(batch["numeric"].unsqueeze(-1) * self.weight)
        if self.numbers is not None:
            columns.append(self.numbers(batch["numeric"]).unflatten(1, (-1, self.width)))
        if self.categories is not None:
            columns.append(self.categories(batch["categorical"]).unflatten(1, (-1, self.width)))
        if self.texts is not None:
            columns.append(self.texts(batch["text"]).unflatten(1, (-1, self.width)))
        tokens = torch.cat(columns, dim=1) + self.bias
        return torch.cat([self.first.expand(len(tokens), -1, -1), tokens], dim=1)


class FTTransformer(nn.Module):
    """`blocks` pre-norm transformer blocks over the columns' tokens, and a head on the first token.

    Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data" (2021). The last block works
    out the first token only: nothing reads the others.
    """

    def __init__(
        self,
        schema: InputSchema,
        width: int,
        blocks: int,
        heads: int,
        hidden_factor: float,
        attention_dropout: float,
        dropout: float,
        numeric_embedding: NumericEmbedding,
        frequencies: int,
        frequency_scale: float,
    ) -> None:
        super().__init__()
        self.tokens = _Tokens(schema, width, numeric_embedding, frequencies, frequency_scale)
        hidden = max(1, round(width * hidden_factor))
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads, hidden, attention_dropout, dropout, first=index == 0)
            for index in range(blocks))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, schema.outputs))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        x = self.tokens(batch)
        for index, block in enumerate(self.blocks, 1):
            x = block(x, only_first=index == len(self.blocks))
        output: Tensor = self.head(x[:, 0])
        return output
