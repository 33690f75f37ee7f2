"""Losses by task, the optimizer, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from raymill.data.schema import InputSchema
from raymill.errors import Problem, SpecError

from .spec import TrainingSpec

AUTO_BATCH = (32, 1024)
AUTO_IMAGES = (32, 256)  # activations of more leave the CPU's caches


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


def class_weights(
    spec: Literal["none", "balanced"] | Mapping[str, float], counts: Tensor, schema: InputSchema
) -> Tensor | None:
    """A weight `[K]` a class, of mean 1 over the training rows; None: all rows weigh the same.

    Raises:
        SpecError: weights for a regression, or for a class that isn't there.
    """
    if spec == "none":
        return None
    if schema.classes is None:
        raise SpecError(Problem(rule="training.class_weights needs a class task", got=schema.task))
    if spec == "balanced":
        weights = torch.where(counts > 0, 1 / counts.clamp(min=1), 0.0).double()
    else:
        assert not isinstance(spec, str)
        if unknown := sorted(set(spec) - set(schema.classes)):
            raise SpecError(Problem(rule="training.class_weights names classes of the target",
                                    got=", ".join(unknown),
                                    cure=f"The classes are {', '.join(schema.classes)}."))
        weights = torch.tensor([float(spec.get(c, 1.0)) for c in schema.classes],
                               dtype=torch.float64)
    mean = (weights * counts).sum() / counts.sum()
    return (weights / mean).float()


def make_optimizer(model: nn.Module, spec: TrainingSpec) -> torch.optim.Optimizer:
    """AdamW, fused; matrices decay, biases and scales do not."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    free = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": spec.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=spec.lr, fused=True)


def batch_rows(spec: TrainingSpec, rows: int, schema: InputSchema) -> int:
    """Rows of a global batch; `auto` is the power of two nearest to a 64th of the rows."""
    if spec.batch_size != "auto":
        return spec.batch_size
    low, high = AUTO_BATCH if schema.image is None else AUTO_IMAGES
    return 1 << round(math.log2(min(high, max(low, rows / 64))))


def learning_rate(spec: TrainingSpec, step: int, steps: int) -> float:
    """The learning rate of step `step` of `steps`: a linear warm-up, then the schedule
    (`cosine` falls to 0)."""
    warm = max(1, round(spec.warmup * steps)) if spec.warmup > 0 else 0
    if step < warm:
        return spec.lr * (step + 1) / warm
    if spec.schedule == "constant":
        return spec.lr
    share = (step - warm) / max(1, steps - warm)
    return spec.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
