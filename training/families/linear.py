"""A linear model: logistic or linear regression, softmax for several classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raymill.data.schema import InputSchema

from .embeddings import CategoryEmbedding, WordMeans


class Linear(nn.Module):
    """A weight a number, a category and a share of a text's words, for each output. Starts at
    zero."""

    def __init__(self, schema: InputSchema) -> None:
        super().__init__()
        self.outputs = schema.outputs
        sizes = [size for _, size in schema.categorical]
        self.weight = None
        if schema.numeric:
            self.weight = nn.Parameter(torch.zeros(len(schema.numeric), self.outputs))
        self.categories = CategoryEmbedding(sizes, self.outputs, 0.0) if sizes else None
        self.words = WordMeans(schema, self.outputs) if schema.text else None
        if self.words is not None:
            nn.init.zeros_(self.words.table.weight)
        self.bias = nn.Parameter(torch.zeros(self.outputs))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        output: Tensor = self.bias
        if self.weight is not None:
            output = output + batch["numeric"] @ self.weight
        if self.categories is not None:
            each: Tensor = self.categories(batch["categorical"])
            output = output + each.unflatten(1, (-1, self.outputs)).sum(dim=1)
        if self.words is not None:
            shares: Tensor = self.words(batch["text"])
            output = output + shares.unflatten(1, (-1, self.outputs)).sum(dim=1)
        return output
