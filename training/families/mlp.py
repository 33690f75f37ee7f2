"""A multilayer perceptron over embedded numbers and categories."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from raymill.data.schema import InputSchema


class PeriodicEmbedding(nn.Module):
    """`[B, N]` numbers to `[B, N, width]`: sines and cosines of learnt frequencies, then a linear
    layer of each number's own and ReLU.

    Gorishniy et al., "On Embeddings for Numerical Features in Tabular Deep Learning" (2022), PLR.
    """

    def __init__(self, numbers: int, frequencies: int, scale: float, width: int) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(numbers, frequencies) * scale)
        bound = 1 / math.sqrt(2 * frequencies)
        self.weight = nn.Parameter(
            torch.empty(numbers, 2 * frequencies, width).uniform_(-bound, bound)
        )
        self.bias = nn.Parameter(torch.empty(numbers, width).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        angle = 2 * math.pi * x.unsqueeze(-1) * self.frequencies
        waves = torch.cat([angle.cos(), angle.sin()], dim=-1)
        return torch.relu(torch.einsum("bnf,nfw->bnw", waves, self.weight) + self.bias)


class PiecewiseEmbedding(nn.Module):
    """`[B, N]` quantile-normal numbers to `[B, N, width]`: how far each number got through each of
    equal-mass bins, then a linear layer of its own (same paper, PLE)."""

    edges: Tensor

    def __init__(self, numbers: int, bins: int, width: int) -> None:
        super().__init__()
        cuts = torch.linspace(0, 1, bins + 1)[1:-1]
        inner = math.sqrt(2) * torch.erfinv(2 * cuts - 1)
        self.register_buffer("edges", torch.cat([torch.tensor([-5.2]), inner, torch.tensor([5.2])]))
        bound = 1 / math.sqrt(bins)
        self.weight = nn.Parameter(torch.empty(numbers, bins, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(numbers, width))

    def forward(self, x: Tensor) -> Tensor:
        low, high = self.edges[:-1], self.edges[1:]
        share = ((x.unsqueeze(-1) - low) / (high - low)).clamp(0, 1)
        return torch.relu(torch.einsum("bnf,nfw->bnw", share, self.weight) + self.bias)


class MLP(nn.Module):
    """Embeddings of numbers and categories side by side, then `depth` layers of `width`."""

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
        numbers = len(schema.numeric)
        self.numbers: nn.Module = nn.Identity()
        wide = numbers
        if numbers and numeric_embedding != "none":
            self.numbers = (
                PeriodicEmbedding(numbers, frequencies, frequency_scale, embedding)
                if numeric_embedding == "periodic"
                else PiecewiseEmbedding(numbers, frequencies, embedding)
            )
            wide = numbers * (embedding + 1)
        self.raw = numeric_embedding != "none"
        sizes = [size for _, size in schema.categorical]
        widths = [min(embedding, (size + 1) // 2) for size in sizes]
        self.categories = nn.ModuleList(
            nn.Embedding(size, narrow) for size, narrow in zip(sizes, widths, strict=True)
        )
        for table in self.categories:
            nn.init.normal_(table.weight, std=0.1)
        wide += sum(widths)
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [nn.Linear(wide, width), nn.ReLU(), nn.Dropout(dropout)]
            wide = width
        self.body = nn.Sequential(*layers, nn.Linear(wide, schema.outputs))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        parts: list[Tensor] = []
        if "numeric" in batch:
            x = batch["numeric"]
            parts.append(x)
            if self.raw:
                parts.append(self.numbers(x).flatten(1))
        for index, table in enumerate(self.categories):
            parts.append(table(batch["categorical"][:, index]))
        return self.body(torch.cat(parts, dim=1))
