"""`training.compile`: the model through torch.compile, where that works."""

from __future__ import annotations

import torch
from torch import nn

from raymill.events import Notify, warn

from .precision import Precision
from .shard import Batch
from .undisturbed import undisturbed


def compile_or_warn(
    model: nn.Module, batch: Batch, precision: Precision, notify: Notify
) -> bool:
    """Compile the model in place; where that fails, warn with the reason and leave it as it was.

    It is tried on `batch`, forward and backward and then as in an evaluation: what is missing (a
    C++ compiler, Triton, or the compiler's support of what the model does) shows only when code is
    generated, which is done here for the steps to come. A size of 1 would be compiled apart.
    """
    mode = model.training
    with undisturbed(model, precision.device):
        try:
            model.compile(dynamic=True)
            with precision():
                output: torch.Tensor = model(batch)
            output.float().sum().backward()
            model.eval()
            with torch.inference_mode(), precision():
                model(batch)
        except Exception as error:  # noqa: BLE001 - the compiler, or code that it can't compile
            model._compiled_call_impl = None
            warn(notify, f"training.compile has no effect here: torch.compile failed with "
                         f"{_reason(error)}")
            return False
        finally:
            model.train(mode)
    return True


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
