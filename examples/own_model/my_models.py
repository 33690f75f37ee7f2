"""A model and a training loop of one's own. The spec names both as `my_models:...`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raymill.data.schema import InputSchema
from raymill.training.context import LoopContext


class GatedNet(nn.Module):
    """A gated layer: one half of it decides how much of the other half passes.

    Takes `numeric [B, N]`, gives `[B, outputs]`: logits, or a standardised regression value.
    """

    def __init__(self, schema: InputSchema, width: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(len(schema.numeric), 2 * width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, schema.outputs)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        gated = nn.functional.glu(self.inner(batch["numeric"]))
        return self.head(self.dropout(self.norm(gated)))


def build(schema: InputSchema, width: int = 64, dropout: float = 0.1) -> nn.Module:
    """What `model.family: my_models:build` calls, with the spec's other model keys."""
    return GatedNet(schema, width, dropout)


def loop(context: LoopContext) -> None:
    """Trains on rows with a little noise on the numbers; what `training.loop` calls.

    Everything else stays raymill's: shards, schedule, validation, checkpoints, early stopping,
    resuming.
    """
    while not context.done:
        total, rows = 0.0, 0
        for batch in context.batches():
            noisy = batch | {"numeric": batch["numeric"] + 0.05 * torch.randn_like(batch["numeric"])}
            with context.autocast():
                output = context.model(noisy)
            loss = context.row_losses(output, batch["target"]).mean()
            context.step(loss)  # backward, clipping, the schedule's learning rate, optimizer
            total += loss.item() * len(batch["target"])
            rows += len(batch["target"])
        context.finish_epoch(train_loss=total / rows)
