"""How many rows a batch has: a global one, and one that only passes through the model."""

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
PASS_ROWS, PASS_BYTES = 8192, 8 << 20  # of a pass without gradients, at most
WORD, COLUMN, PIXEL = 256, 16, 4  # bytes that each counts for: a word and a column are embedded
SPARE = 0.8  # share of a GPU's memory that a try may take: the optimizer needs some too


def batch_rows(spec: TrainingSpec, rows: int, schema: InputSchema) -> int:
    """Rows of a global batch; `auto` is the power of two nearest to a 64th of the rows."""
    if spec.batch_size != "auto":
        return spec.batch_size
    low, high = AUTO_HEAVY if schema.image is not None or schema.text else AUTO_BATCH
    return 1 << round(math.log2(min(high, max(low, rows / STEPS))))


def rows_at_once(schema: InputSchema, least: int = 1) -> int:
    """Rows that pass through a model at a time without gradients: so few that what it computes of
    large images and long texts stays small; `least` are known to fit."""
    words = sum(places for _, _, places in schema.text)
    columns = len(schema.numeric) + len(schema.categorical)
    row = PIXEL * math.prod(schema.image or (0,)) + WORD * words + COLUMN * columns
    return max(1, least, min(PASS_ROWS, PASS_BYTES // max(1, row)))


def largest_fitting(start: int, most: int, attempt: Callable[[int], None]) -> int:
    """The largest of `start`, 2 `start`, 4 `start` ... `most` that `attempt` does not run out of
    memory with, or else of half of `start`, a quarter ... 1.

    Raises:
        torch.OutOfMemoryError: not even one row fits.
    """
    size = start
    while not _fits(attempt, size):
        if size == 1:
            raise torch.OutOfMemoryError("a batch of one row does not fit")
        size //= 2
    while size >= start and size * 2 <= most and _fits(attempt, size * 2):
        size *= 2
    return size


def _fits(attempt: Callable[[int], None], rows: int) -> bool:
    try:
        attempt(rows)
    except torch.OutOfMemoryError:
        return False
    return True


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
        with undisturbed(model, device):
            batch = {name: tensor.to(device)
                     for name, tensor in train.take(torch.arange(rows) % train.rows).items()}
            with precision():
                output = model(batch)
            losses(output, batch[TARGET]).mean().backward()
        total = torch.cuda.get_device_properties(device).total_memory
        if torch.cuda.max_memory_allocated(device) > SPARE * total:
            raise torch.OutOfMemoryError(f"{rows} rows take nearly all of the GPU's memory")

    return attempt
