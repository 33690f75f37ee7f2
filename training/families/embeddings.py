"""Embeddings of numbers and categories that the families share. Shapes: B rows, N numbers, C
categorical columns, F frequencies or bins, E the embedding's width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from raymill.data.schema import InputSchema

CATEGORY_SCALE = 0.1  # small at first: a rare category's vector hardly says anything
NumericEmbedding = Literal["none", "periodic", "piecewise"]
WORD_WIDTH = 64
WORD_SCALE = 0.1
PADDING = 0  # of a text's places behind its words
EDGE = 5.2  # where the transform clips a number


class CategoryEmbedding(nn.Module):
    """`[B, C]` category indices to `[B, C * width]`. One table holds all columns' categories: one
    look-up, however many columns."""

    offsets: Tensor

    def __init__(self, sizes: Sequence[int], width: int, scale: float) -> None:
        super().__init__()
        starts = [sum(sizes[:column]) for column in range(len(sizes))]
        self.register_buffer("offsets", torch.tensor(starts), persistent=False)
        self.table = nn.Embedding(sum(sizes), width)
        nn.init.normal_(self.table.weight, std=scale)

    def forward(self, categories: Tensor) -> Tensor:
        embedded: Tensor = self.table(categories + self.offsets)
        return embedded.flatten(1)


class _EachNumber(nn.Module):
    """A linear layer of each number's own, and ReLU: `[B, N, F]` to `[B, N * E]`."""

    def __init__(self, numbers: int, features: int, width: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(features)
        self.weight = nn.Parameter(torch.empty(numbers, features, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(numbers, 1, width).uniform_(-bound, bound))

    def forward(self, features: Tensor) -> Tensor:
        out = torch.baddbmm(self.bias, features.transpose(0, 1), self.weight)
        return torch.relu(out).transpose(0, 1).flatten(1)


class PeriodicEmbedding(nn.Module):
    """`[B, N]` numbers to `[B, N * width]`: sines and cosines of learnt frequencies, then a linear
    layer and ReLU.

    Gorishniy et al., "On Embeddings for Numerical Features in Tabular Deep Learning" (2022), PLR.
    """

    def __init__(self, numbers: int, frequencies: int, scale: float, width: int) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(numbers, frequencies) * scale)
        self.each = _EachNumber(numbers, 2 * frequencies, width)

    def forward(self, x: Tensor) -> Tensor:
        angle = 2 * math.pi * x.unsqueeze(-1) * self.frequencies
        embedded: Tensor = self.each(torch.cat([angle.cos(), angle.sin()], dim=-1))
        return embedded


class PiecewiseEmbedding(nn.Module):
    """`[B, N]` quantile-normal numbers to `[B, N * width]`: how far each number got through each
    of the bins, which hold equal shares of a normal distribution, then as above (same paper, PLE).
    """

    edges: Tensor

    def __init__(self, numbers: int, bins: int, width: int) -> None:
        super().__init__()
        shares = torch.linspace(0, 1, bins + 1)[1:-1]
        inner = math.sqrt(2) * torch.erfinv(2 * shares - 1)
        ends = torch.tensor([EDGE])
        self.register_buffer("edges", torch.cat([-ends, inner, ends]), persistent=False)
        self.each = _EachNumber(numbers, bins, width)

    def forward(self, x: Tensor) -> Tensor:
        low, high = self.edges[:-1], self.edges[1:]
        embedded: Tensor = self.each(((x.unsqueeze(-1) - low) / (high - low)).clamp(0, 1))
        return embedded


class WordMeans(nn.Module):
    """`text [B, L]` to `[B, T * width]`: the mean of the words' vectors of each of T columns; zeros
    for a text without words.

    Joulin et al., "Bag of Tricks for Efficient Text Classification" (2016), without n-grams.
    """

    def __init__(self, schema: InputSchema, width: int) -> None:
        super().__init__()
        self.places = schema.places
        self.table = nn.Embedding(schema.vocabulary, width, padding_idx=PADDING)
        nn.init.normal_(self.table.weight, std=WORD_SCALE)
        with torch.no_grad():
            self.table.weight[PADDING] = 0

    def forward(self, text: Tensor) -> Tensor:
        means = [functional.embedding_bag(column, self.table.weight, padding_idx=PADDING)
                 for column in text.split(self.places, dim=1)]
        return torch.cat(means, dim=1)


class Columns(nn.Module):
    """A row's numbers, their embeddings, those of its categories and of its texts' words, as parts
    `[B, ...]` to be put side by side; `width` is that of all of them. A schema without any gives no
    part.

    Args:
        words: the width of a text's mean word vector; 0 leaves texts to the caller.
    """

    def __init__(
        self,
        schema: InputSchema,
        embedding: int,
        numeric_embedding: NumericEmbedding = "none",
        frequencies: int = 1,
        frequency_scale: float = 1.0,
        words: int = WORD_WIDTH,
    ) -> None:
        super().__init__()
        numbers, sizes = len(schema.numeric), [size for _, size in schema.categorical]
        self.numbers: nn.Module | None = None
        if numbers and numeric_embedding == "periodic":
            self.numbers = PeriodicEmbedding(numbers, frequencies, frequency_scale, embedding)
        elif numbers and numeric_embedding == "piecewise":
            self.numbers = PiecewiseEmbedding(numbers, frequencies, embedding)
        self.categories = CategoryEmbedding(sizes, embedding, CATEGORY_SCALE) if sizes else None
        embedded = len(sizes) + (numbers if self.numbers is not None else 0)
        self.texts = WordMeans(schema, words) if schema.text and words else None
        self.width = numbers + embedding * embedded + words * len(schema.text)

    def forward(self, batch: dict[str, Tensor]) -> list[Tensor]:
        parts: list[Tensor] = []
        if "numeric" in batch:
            parts.append(batch["numeric"])
        if self.numbers is not None:
            parts.append(self.numbers(batch["numeric"]))
        if self.categories is not None:
            parts.append(self.categories(batch["categorical"]))
        if self.texts is not None:
            parts.append(self.texts(batch["text"]))
        return parts
