"""A small residual network for images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raymill.data.schema import InputSchema

from .cnn import CATEGORY_WIDTH, SMALLEST
from .embeddings import Columns
from .pixels import Pixels


def _convolution(wide: int, out: int, *, pool: bool = False) -> list[nn.Module]:
    """A 3x3 convolution, 2x2 pooling, batch norm and ReLU."""
    pooling = [nn.MaxPool2d(2)] if pool else []
    return [nn.Conv2d(wide, out, 3, padding=1, bias=False), *pooling, nn.BatchNorm2d(out),
            nn.ReLU()]


class _Residual(nn.Module):
    """Two convolutions, added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            *_convolution(channels, channels), *_convolution(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = x + self.inner(x)
        return added


class ImageResNet(nn.Module):
    """A first convolution of `channels`, then `stages` that halve the sides and double the
    channels, each with `blocks` residual blocks; their global mean and maximum, beside them the
    row's numbers and categories, and a linear head.

    The shape is ResNet-9's (Coleman et al., "DAWNBench", 2017, and its later entries); residuals
    are those of He et al., "Deep Residual Learning for Image Recognition" (2015).
    """

    def __init__(
        self,
        schema: InputSchema,
        channels: int,
        stages: int,
        blocks: int,
        dropout: float,
        flip: bool,
        crop: int,
    ) -> None:
        super().__init__()
        if schema.image is None:
            raise ValueError("an image_resnet needs an image column")
        self.pixels = Pixels(flip=flip, crop=crop)
        wide, side = channels, min(schema.image[1:])
        layers = _convolution(schema.image[0], channels)
        for _ in range(stages):
            layers += _convolution(wide, 2 * wide, pool=side >= SMALLEST)
            wide, side = 2 * wide, side // 2
            layers += [_Residual(wide) for _ in range(blocks)]
        self.features = nn.Sequential(*layers)
        self.columns = Columns(schema, CATEGORY_WIDTH)
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(2 * wide + self.columns.width, schema.outputs))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        x = self.features(self.pixels(batch["image"]))
        parts = [x.mean(dim=(2, 3)), x.amax(dim=(2, 3)), *self.columns(batch)]
        output: Tensor = self.head(torch.cat(parts, dim=1))
        return output
