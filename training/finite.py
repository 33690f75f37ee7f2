"""Names what is not finite: the batch, its rows, and the first tensor that NaN or Inf is in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from raymill.data.schema import InputSchema
from raymill.errors import Problem, TrainingError

from .shard import Batch

SHOWN = 5


class NotFiniteError(Exception):
    """A step met NaN or Inf. `tensor` names where it was first, `rows` which rows of the batch
    show it; `late` is how many steps ago it was."""

    def __init__(self, tensor: str, rows: Sequence[int] = (), late: int = 0) -> None:
        super().__init__(tensor)
        self.tensor, self.rows, self.late = tensor, list(rows), late


class LossGuard:
    """Looks at every step's loss. On a GPU it looks one step late, so that none is waited for."""

    def __init__(self) -> None:
        self._last: tuple[Tensor, torch.cuda.Event] | None = None

    def late(self, loss: Tensor) -> int | None:
        """How many steps ago the loss was NaN or Inf, 0 or 1; None: it is finite."""
        if loss.device.type != "cuda":
            return None if is_finite(loss) else 0
        last, flag = self._last, torch.empty((), dtype=torch.bool, pin_memory=True)
        flag.copy_(torch.isfinite(loss).all(), non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        self._last = flag, copied
        if last is not None:
            last[1].synchronize()
        return 1 if last is not None and not bool(last[0]) else None


def is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def bad_rows(values: Tensor) -> list[int]:
    """Which rows of `[B, ...]` hold NaN or Inf."""
    finite = torch.isfinite(values).reshape(len(values), -1).all(dim=1)
    return [int(row) for row in (~finite).nonzero()]


@torch.no_grad()
def first_bad(model: nn.Module, batch: Batch, schema: InputSchema) -> NotFiniteError:
    """The first tensor on the way from the batch to the output that holds NaN or Inf: an input
    column, a parameter, a layer's output, or else the loss."""
    for name, tensor in batch.items():
        if tensor.is_floating_point() and (rows := bad_rows(tensor)):
            return NotFiniteError(f"the input {_column(name, tensor, schema)}", rows)
    for name, parameter in model.named_parameters():
        if not is_finite(parameter):
            return NotFiniteError(f"the parameter {name}")
    found: list[NotFiniteError] = []
    hooks = [module.register_forward_hook(_hook(name, found))
             for name, module in model.named_modules() if not list(module.children())]
    try:
        model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else NotFiniteError("the loss")


def first_bad_gradient(model: nn.Module) -> NotFiniteError:
    """The first parameter whose gradient holds NaN or Inf."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not is_finite(parameter.grad):
            return NotFiniteError(f"the gradient of {name}")
    return NotFiniteError("the gradient's norm")


def _hook(name: str, found: list[NotFiniteError]) -> object:
    def look(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and not is_finite(output):
            rows = bad_rows(output) if output.ndim else []
            found.append(NotFiniteError(f"the output of {name} ({type(module).__name__})", rows))

    return look


def _column(name: str, tensor: Tensor, schema: InputSchema) -> str:
    if name == "numeric" and tensor.ndim == 2 and tensor.shape[1] == len(schema.numeric):
        bad = (~torch.isfinite(tensor)).any(dim=0).nonzero()
        return f"column {schema.numeric[int(bad[0])]}"
    return name


def stopped(
    error: NotFiniteError, epoch: int, step: int, chosen: Tensor, rank: int
) -> TrainingError:
    """What the user is told. `chosen` are the places of the batch's rows among the training rows;
    values are not told."""
    bad = [int(chosen[row]) for row in error.rows if row < len(chosen)]
    rows = [str(row) for row in (bad or chosen.tolist())[:SHOWN]]
    of = f" of {len(bad or chosen)}" if len(bad or chosen) > SHOWN else ""
    return TrainingError(Problem(
        rule="the loss must stay finite",
        got=f"NaN or Inf in epoch {epoch + 1}, step {step + 1} on rank {rank}, first in "
            f"{error.tensor}; {'its' if not bad else 'bad'} training rows (from 0): "
            f"{', '.join(rows)}{of}",
        cure="Lower training.lr, or set training.clip_norm. Nothing was checkpointed after."))
