"""Metrics on the validation rows of all ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from raymill.data.schema import InputSchema

from .losses import row_losses, scores_of
from .metrics import compute_all
from .parallel import gather_rows
from .precision import Precision
from .shard import TARGET, Shard

EVALUATION_ROWS = 8192


@torch.inference_mode()
def evaluate(
    model: nn.Module, validation: Shard, counts: list[int], schema: InputSchema,
    precision: Precision, tick: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """`val_loss` and every metric of the task on all ranks' validation rows.

    Args:
        validation: this rank's rows. counts: the rows of every rank.
        tick: is called after every batch.
    """
    device = precision.device
    model.eval()
    outputs: list[Tensor] = []
    for batch in validation.batches(0, EVALUATION_ROWS, shuffle=False):
        moved = {name: tensor.to(device) for name, tensor in batch.items()}
        with precision():
            outputs.append(model(moved).float())
        tick()
    output = torch.cat(outputs) if outputs else torch.zeros((0, schema.outputs))
    target = validation.tensors.get(TARGET, torch.zeros(0))
    all_output = torch.from_numpy(gather_rows(output.to(device), counts))
    all_target = torch.from_numpy(gather_rows(target.to(device), counts))
    return measure(all_output, all_target, schema)


def measure(output: Tensor, target: Tensor, schema: InputSchema) -> dict[str, float]:
    """`val_loss` and every metric of the task, of all rows' outputs."""
    loss = float(row_losses(output, target, schema).double().mean())
    y: NDArray[Any] = target.numpy()
    if schema.task == "regression":
        y = y * schema.target_std + schema.target_mean
    values = compute_all(y, scores_of(output, schema).numpy(), schema)
    return {"val_loss": loss, **{f"val_{name}": v for name, v in values.items()}}
