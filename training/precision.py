"""What numbers the model computes in."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from .spec import TrainingSpec


@dataclass(frozen=True)
class Precision:
    """Calling it gives the context that the model runs in."""

    device: torch.device
    half: bool

    def __call__(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half)


def make_precision(spec: TrainingSpec, device: torch.device) -> Precision:
    """bfloat16 where the spec says so, and on a GPU unless it says fp32."""
    half = spec.precision == "bf16" or (device.type == "cuda" and spec.precision != "fp32")
    return Precision(device, half)
