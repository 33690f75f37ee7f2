"""Names what is not finite: the batch, its rows, and the first tensor that NaN or Inf is in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from raymill.data.schema import InputSchema
from raymill.errors import Problem, TrainingError

from .shard import Batch

SHOWN = 5
LOSS = "the loss"


class NotFiniteError(Exception):
    """A step met NaN or Inf. `tensor` names where it was first, `rows` which rows of the batch
    show it; `late` is how many steps ago it was."""

    def __init__(self, tensor: str, rows: Sequence[int] = (), late: int = 0) -> None:
        super().__init__(tensor)
        self.tensor, self.rows, self.late = tensor, list(rows), late


class LossGuard:
    """Looks at every loss. On a GPU it looks one loss late, so that none is waited for."""

    def __init__(self) -> None:
        self._last: tuple[int, Callable[[], bool]] | None = None

    def late(self, step: int, loss: Tensor) -> int | None:
        """How many steps before `step` a loss was NaN or Inf, given another of that step; None:
        none was, as far as it is known."""
        late = self.rest(step) if self._last is not None else None
        self._last = step, _looked_at(loss)
        return self.rest(step) if late is None and not looks_late(loss) else late

    def rest(self, step: int) -> int | None:
        """The same of the loss that was given last; it is waited for."""
        last, self._last = self._last, None
        return step - last[0] if last is not None and not last[1]() else None


def looks_late(loss: Tensor) -> bool:
    """Whether a look at the loss would wait for what its device has still to do."""
    return loss.device.type == "cuda"


def _looked_at(loss: Tensor) -> Callable[[], bool]:
    """Tells whether the loss is finite; the answer is on its way from the device already."""
    if loss.device.type != "cuda":
        value = loss.item()  # of one number, torch.isfinite takes longer than a layer does
        return lambda: math.isfinite(value)
    finite = torch.isfinite(loss).all()
    flag = torch.empty((), dtype=torch.bool, pin_memory=True)
    flag.copy_(finite, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def tell() -> bool:
        copied.synchronize()
        return bool(flag)

    return tell


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
    if (column := bad_input(batch, schema)) is not None:
        return column
    for name, parameter in model.named_parameters():
        if not is_finite(parameter):
            return NotFiniteError(f"the parameter {name}")
    found: list[NotFiniteError] = []
    hooks = [module.register_forward_hook(_hook(name, found))
             for name, module in model.named_modules() if not list(module.children())]
    try:
        with suppress(Exception):  # a loop of one's own may call its model otherwise
            model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else NotFiniteError(LOSS)


def bad_input(batch: Batch, schema: InputSchema) -> NotFiniteError | None:
    """The first input column that holds NaN or Inf."""
    for name, tensor in batch.items():
        if tensor.is_floating_point() and (rows := bad_rows(tensor)):
            return NotFiniteError(f"the input {_column(name, tensor, schema)}", rows)
    return None


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
