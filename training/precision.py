"""What numbers the model computes in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from raymill.errors import Problem, SpecError

from .spec import TrainingSpec


@dataclass(frozen=True)
class Precision:
    """Calling it gives the context that the model runs in.

    Attributes:
        dtype: what matrices are multiplied in; weights, losses and sums stay float32.
        scaler: keeps the gradients of fp16 above its least number; None: not needed.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    scaler: torch.amp.GradScaler | None = None

    def __call__(self) -> AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def make_precision(spec: TrainingSpec, device: torch.device) -> Precision:
    """The spec's; `auto` is bf16 on a GPU that computes in it, and fp32 elsewhere.

    Raises:
        SpecError: fp16 without a GPU.
    """
    if spec.precision == "fp16":
        if device.type != "cuda":
            raise SpecError(Problem(
                rule="training.precision fp16 needs a GPU", got=f"device {device.type}",
                cure="Take bf16, which a CPU computes in too, or fp32."))
        return Precision(device, torch.float16, torch.amp.GradScaler())
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    half = spec.precision == "bf16" or (spec.precision == "auto" and fast)
    return Precision(device, torch.bfloat16 if half else torch.float32)
