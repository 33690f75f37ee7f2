"""Images as networks take them, and their random changes while training."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Pixels(nn.Module):
    """`[B, C, H, W]` uint8 to float32 in -1..1.

    While training, each image is mirrored left to right with `flip` at even odds, and shifted by up
    to `crop` pixels each way over its repeated edge.
    """

    def __init__(self, *, flip: bool, crop: int) -> None:
        super().__init__()
        self.flip, self.crop = flip, crop

    def forward(self, images: Tensor) -> Tensor:
        if self.training and self.crop:
            images = self._shifted(images)
        if self.training and self.flip:
            mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
            images = torch.where(mirrored, images.flip(-1), images)
        # The layout that CPUs and GPUs convolve fastest; weights keep theirs, as they are saved.
        return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)

    def _shifted(self, images: Tensor) -> Tensor:
        rows, _, height, width = images.shape
        each = torch.arange(rows, device=images.device)[:, None, None]
        down = self._places(rows, height, images.device)[:, :, None]
        right = self._places(rows, width, images.device)[:, None, :]
        return images[each, :, down, right].permute(0, 3, 1, 2)

    def _places(self, rows: int, size: int, device: torch.device) -> Tensor:
        """`[rows, size]`: from where each pixel of a side is taken."""
        shift = torch.randint(-self.crop, self.crop + 1, (rows, 1), device=device)
        return (torch.arange(size, device=device) + shift).clamp(0, size - 1)
