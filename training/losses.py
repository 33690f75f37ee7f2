"""What a row's output costs, and the scores that its output stands for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from raymill.data.schema import InputSchema

from .spec import TrainingSpec

FOCUS = 2.0  # of focal loss, as in its paper
SURE = 1e-12  # 1 - p is at least this: a root of it has no gradient at 0
QUANTILE = 0.5
HUBER_DELTA = 1.0  # standard deviations of the target
RowLosses = Callable[[Tensor, Tensor], Tensor]


def row_losses(output: Tensor, target: Tensor, schema: InputSchema) -> Tensor:
    """The plain loss `[B]` of each row: cross entropy in nats, or squared error of standardised
    values."""
    if schema.task == "regression":
        return functional.mse_loss(_flat(output), target.float(), reduction="none")
    return cross_entropy(output, target, schema)


def training_losses(spec: TrainingSpec, schema: InputSchema) -> RowLosses:
    """The spec's loss, as a function of output `[B, outputs]` and target `[B]` that gives `[B]`."""
    if schema.task == "regression":
        return regression_losses(spec)
    if spec.loss == "focal":
        focus = FOCUS if spec.focal_gamma is None else spec.focal_gamma
        return lambda output, target: focal(output, target, schema, focus)
    smoothing = spec.label_smoothing
    return lambda output, target: cross_entropy(output, target, schema, smoothing)


def validation_losses(spec: TrainingSpec, schema: InputSchema) -> RowLosses:
    """What `val_loss` is the mean of: the loss of a regression; for classes the plain cross
    entropy, whatever training smooths or focuses on."""
    if schema.task == "regression":
        return regression_losses(spec)
    return lambda output, target: cross_entropy(output, target, schema)


def regression_losses(spec: TrainingSpec) -> RowLosses:
    """Of standardised values."""
    if spec.loss == "mae":
        return lambda output, target: (_flat(output) - target.float()).abs()
    if spec.loss == "huber":
        delta = HUBER_DELTA if spec.huber_delta is None else spec.huber_delta
        return lambda output, target: functional.huber_loss(
            _flat(output), target.float(), reduction="none", delta=delta)
    if spec.loss == "quantile":
        tau = QUANTILE if spec.quantile is None else spec.quantile
        return lambda output, target: pinball(output, target, tau)
    return lambda output, target: functional.mse_loss(
        _flat(output), target.float(), reduction="none")


def cross_entropy(
    output: Tensor, target: Tensor, schema: InputSchema, smoothing: float = 0.0
) -> Tensor:
    """Cross entropy `[B]` in nats; with `smoothing`, that share of a row's weight goes to all
    classes alike (Szegedy et al. 2016)."""
    if schema.task == "multiclass":
        return functional.cross_entropy(output.float(), target, reduction="none",
                                        label_smoothing=smoothing)
    wanted = target.float()
    if smoothing:
        wanted = wanted * (1 - smoothing) + smoothing / 2
    return functional.binary_cross_entropy_with_logits(_flat(output), wanted, reduction="none")


def focal(output: Tensor, target: Tensor, schema: InputSchema, focus: float) -> Tensor:
    """Focal loss `[B]`: cross entropy times (1 - p)^focus, p the probability of the row's own
    class (Lin et al. 2017)."""
    losses = cross_entropy(output, target, schema)
    return losses * (-torch.expm1(-losses)).clamp(min=SURE) ** focus


def pinball(output: Tensor, target: Tensor, tau: float) -> Tensor:
    """Pinball loss `[B]`, least where the output is the target's `tau` quantile (Koenker and
    Bassett 1978)."""
    over = target.float() - _flat(output)
    return torch.maximum(tau * over, (tau - 1) * over)


def scores_of(output: Tensor, schema: InputSchema) -> Tensor:
    """What metrics take: probabilities `[B]` or `[B, K]`, or values `[B]` in the target's unit."""
    if schema.task == "multiclass":
        return output.float().softmax(dim=1)
    if schema.task == "binary":
        return _flat(output).sigmoid()
    return _flat(output) * schema.target_std + schema.target_mean


def _flat(output: Tensor) -> Tensor:
    return output.float().squeeze(1)
