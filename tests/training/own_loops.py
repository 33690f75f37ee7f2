"""Loops of a user's own, for tests."""

from __future__ import annotations

from raymill.training.context import LoopContext


def plain(context: LoopContext) -> None:
    """What raymill's own loop does; each worker's mean loss is that of its rows."""
    while not context.done:
        for batch in context.batches():
            with context.autocast():
                output = context.model(batch)
            context.step(context.row_losses(output, batch["target"]).mean())
        context.finish_epoch(train_loss=0.0)


def unreduced(context: LoopContext) -> None:
    """Forgets to take the mean."""
    for batch in context.batches():
        context.step(context.row_losses(context.model(batch), batch["target"]))
