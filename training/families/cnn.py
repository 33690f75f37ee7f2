"""A convolutional network for small images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raymill.data.schema import InputSchema


class CNN(nn.Module):
    """`blocks` of two 3x3 convolutions with batch norm and 2x2 pooling, the channels doubling;
    global average pooling and a linear head. Images come as uint8 and are scaled here."""

    def __init__(
        self, schema: InputSchema, channels: int, blocks: int, dropout: float, flip: bool
    ) -> None:
        super().__init__()
        if schema.image is None:
            raise ValueError("a cnn needs an image column")
        self.flip = flip
        layers: list[nn.Module] = []
        wide = schema.image[0]
        side = min(schema.image[1:])
        for block in range(blocks):
            out = channels * 2**block
            layers += [*_conv(wide, out), *_conv(out, out)]
            if side >= 4:
                layers.append(nn.MaxPool2d(2))
                side //= 2
            wide = out
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * wide, schema.outputs))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        x = batch["image"].to(self.head[1].weight.dtype) / 127.5 - 1
        if self.flip and self.training:
            mirrored = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
            x = torch.where(mirrored, x.flip(-1), x)
        x = self.features(x.contiguous(memory_format=torch.channels_last))
        return self.head(torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1))


def _conv(wide: int, out: int) -> list[nn.Module]:
    return [nn.Conv2d(wide, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
