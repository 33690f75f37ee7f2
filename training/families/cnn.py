"""A convolutional network for small images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raymill.data.schema import InputSchema

from .embeddings import CategoryEmbedding

CATEGORY_WIDTH = 16
SMALLEST = 4  # images are pooled while their shorter side is at least this


class CNN(nn.Module):
    """`blocks` of a 3x3 convolution, 2x2 pooling and batch norm, the channels doubling; their
    global mean and maximum, beside them the row's numbers and categories, and a linear head. Images
    come as uint8 and are scaled here."""

    def __init__(
        self, schema: InputSchema, channels: int, blocks: int, dropout: float, flip: bool
    ) -> None:
        super().__init__()
        if schema.image is None:
            raise ValueError("a cnn needs an image column")
        self.flip = flip
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
        sizes = [size for _, size in schema.categorical]
        self.categories = CategoryEmbedding(sizes, CATEGORY_WIDTH, 0.1) if sizes else None
        wide = 2 * wide + len(schema.numeric) + CATEGORY_WIDTH * len(sizes)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(wide, schema.outputs))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        x = batch["image"].float() / 127.5 - 1
        if self.flip and self.training:
            mirrored = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
            x = torch.where(mirrored, x.flip(-1), x)
        # The layout that CPUs and GPUs convolve fastest; weights keep theirs, as they are saved.
        x = self.features(x.contiguous(memory_format=torch.channels_last))
        parts = [x.mean(dim=(2, 3)), x.amax(dim=(2, 3))]
        if "numeric" in batch:
            parts.append(batch["numeric"])
        if self.categories is not None:
            parts.append(self.categories(batch["categorical"]))
        output: Tensor = self.head(torch.cat(parts, dim=1))
        return output
