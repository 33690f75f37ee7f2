"""What a row's output costs, and the scores that its output stands for."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from raymill.data.schema import InputSchema


def row_losses(output: Tensor, target: Tensor, schema: InputSchema) -> Tensor:
    """The loss `[B]` of each row: cross entropy in nats, or squared error of standardised values."""
    output = output.float()
    if schema.task == "multiclass":
        return functional.cross_entropy(output, target, reduction="none")
    flat = output.squeeze(1)
    if schema.task == "binary":
        return functional.binary_cross_entropy_with_logits(flat, target.float(), reduction="none")
    return functional.mse_loss(flat, target.float(), reduction="none")


def scores_of(output: Tensor, schema: InputSchema) -> Tensor:
    """What metrics take: probabilities `[B]` or `[B, K]`, or values `[B]` in the target's unit."""
    output = output.float()
    if schema.task == "multiclass":
        return output.softmax(dim=1)
    flat = output.squeeze(1)
    if schema.task == "binary":
        return flat.sigmoid()
    return flat * schema.target_std + schema.target_mean
