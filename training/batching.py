"""How many rows a global batch has."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from raymill.data.schema import InputSchema

from .losses import RowLosses
from .precision import Precision
from .shard import TARGET, Shard
from .spec import TrainingSpec
from .undisturbed import undisturbed

AUTO_BATCH = (32, 1024)
AUTO_HEAVY = (32, 256)  # of images and texts: activations of more leave the CPU's caches
STEPS = 64  # an epoch has about as many at least, where the batch is automatic
SPARE = 0.8  # share of a GPU's memory that a try may take: the optimizer needs some too


def batch_rows(spec: TrainingSpec, rows: int, schema: InputSchema) -> int:
    """Rows of a global batch; `auto` is the power of two nearest to a 64th of the rows."""
    if spec.batch_size != "auto":
        return spec.batch_size
    low, high = AUTO_HEAVY if schema.image is not None or schema.text else AUTO_BATCH
    return 1 << round(math.log2(min(high, max(low, rows / STEPS))))


def largest_fitting(least: int, most: int, attempt: Callable[[int], None]) -> int:
    """The largest of `least`, 2 `least`, 4 `least` ... `most` that `attempt` does not run out of
    memory with; `least` itself is not tried."""
    size = least
    while size * 2 <= most:
        try:
            attempt(size * 2)
        except torch.OutOfMemoryError:
            break
        size *= 2
    return size


def most_rows(rows: int) -> int:
    """Rows of the largest automatic batch."""
    return rows // STEPS


def step_attempt(
    model: nn.Module, train: Shard, losses: RowLosses, precision: Precision
) -> Callable[[int], None]:
    """A function that takes `rows` rows through forward and backward on the GPU.

    Raises (the function):
        torch.OutOfMemoryError: they don't fit.
    """
    device = precision.device

    def attempt(rows: int) -> None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        numbers = torch.arange(rows) % train.rows
        with undisturbed(model, device):
            batch = {name: tensor.index_select(0, numbers.to(tensor.device)).to(device)
                     for name, tensor in train.tensors.items()}
            with precision():
                output = model(batch)
            losses(output, batch[TARGET]).mean().backward()
        total = torch.cuda.get_device_properties(device).total_memory
        if torch.cuda.max_memory_allocated(device) > SPARE * total:
            raise torch.OutOfMemoryError(f"{rows} rows take nearly all of the GPU's memory")

    return attempt
