"""Metrics on the validation rows of all ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from raymill.data.schema import InputSchema

from .losses import RowLosses, row_losses, scores_of
from .metrics import compute_all
from .parallel import gather_rows
from .precision import Precision
from .shard import TARGET, Batch, Shard


@dataclass(frozen=True)
class Evaluator:
    """Measures a model on the validation rows of all ranks; every rank calls it.

    Attributes:
        shard: holds this rank's rows from number `first` on. counts: the rows of every rank.
        spare: a row for a rank whose own have ended to go through: a model in parts is gathered
            from all ranks for every forward.
        rows: that pass through the model at a time, on every rank.
        losses: what `val_loss` is the mean of. tick: is called after every batch.
        offset: what is added to the model's output, as the bundle will.
    """

    shard: Shard
    first: int
    counts: list[int]
    rank: int
    spare: Batch
    rows: int
    schema: InputSchema
    precision: Precision
    losses: RowLosses
    tick: Callable[[], None]
    offset: tuple[float, ...] = ()

    @torch.inference_mode()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        """`val_loss` and every metric of the task."""
        model.eval()
        own = self.counts[self.rank]
        outputs: list[Tensor] = []
        for low in range(0, max(self.counts), self.rows):
            if low < own:
                outputs.append(self._output(model, self._rows(low, min(low + self.rows, own))))
            else:
                self._output(model, self.spare)
            self.tick()
        if not outputs:
            outputs.append(torch.zeros((0, self.schema.outputs), device=self.precision.device))
        target = self._rows(0, own)[TARGET] if own else self.spare[TARGET][:0]
        return measure(
            torch.from_numpy(gather_rows(torch.cat(outputs), self.counts)),
            torch.from_numpy(gather_rows(target.to(self.precision.device), self.counts)),
            self.schema, self.losses)

    def _rows(self, low: int, high: int) -> Batch:
        return {name: tensor[self.first + low : self.first + high]
                for name, tensor in self.shard.tensors.items()}

    def _output(self, model: nn.Module, batch: Batch) -> Tensor:
        moved = {name: tensor.to(self.precision.device) for name, tensor in batch.items()}
        with self.precision():
            output: Tensor = model(moved).float()
        return output + output.new_tensor(self.offset) if self.offset else output


def measure(
    output: Tensor, target: Tensor, schema: InputSchema, losses: RowLosses | None = None
) -> dict[str, float]:
    """`val_loss` (the mean of `losses`, or of the plain ones) and every metric of the task, of all
    rows' outputs."""
    each = row_losses(output, target, schema) if losses is None else losses(output, target)
    y: NDArray[Any] = target.numpy()
    if schema.task == "regression":
        y = y * schema.target_std + schema.target_mean
    values = compute_all(y, scores_of(output, schema).numpy(), schema)
    return {"val_loss": float(each.double().mean()),
            **{f"val_{name}": v for name, v in values.items()}}
