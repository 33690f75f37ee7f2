"""A convolutional network for small images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raymill.data.schema import InputSchema

from .embeddings import Columns
from .pixels import Pixels

CATEGORY_WIDTH = 16
SMALLEST = 4  # images are pooled while their shorter side is at least this


class CNN(nn.Module):
    """`blocks` of a 3x3 convolution, 2x2 pooling and batch norm, the channels doubling; their
    global mean and maximum, beside them the row's numbers and categories, and a linear head."""

    def __init__(
        self, schema: InputSchema, channels: int, blocks: int, dropout: float, flip: bool, crop: int
    ) -> None:
        super().__init__()
        if schema.image is None:
            raise ValueError("a cnn needs an image column")
        self.pixels = Pixels(flip=flip, crop=crop)
        layers: list[nn.Module] = []
        wide, side = schema.image[0], min(schema.image[1:])
        for block in range(blocks):
            out = channels * 2**block
            layers.append(nn.Conv2d(wide, out, 3, padding=1, bias=False))
            if side >= SMALLEST:
                layers.append(nn.MaxPool2d(2))  # first, so that the rest has a quarter to do
            layers += [nn.BatchNorm2d(out), nn.ReLU()]
            wide, side = out, side // 2
        self.features = nn.Sequential(*layers)
        self.columns = Columns(schema, CATEGORY_WIDTH)
        wide = 2 * wide + self.columns.width
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(wide, schema.outputs))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        x = self.features(self.pixels(batch["image"]))
        parts = [x.mean(dim=(2, 3)), x.amax(dim=(2, 3)), *self.columns(batch)]
        output: Tensor = self.head(torch.cat(parts, dim=1))
        return output
