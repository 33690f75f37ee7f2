"""Optimizers that leave torch's compiler out of processes that compile nothing.

torch imports it, which takes a second or more, at an optimizer's first step, only to tell it what
to skip. While nothing else has imported it, there is nothing to be told.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.optim import Optimizer

O = TypeVar("O", bound=Optimizer)
_MARK = "__dynamo_disable"  # where torch._compile keeps how the compiler is to see a method
_MARKED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def _compiles() -> bool:
    return "torch._dynamo" in sys.modules


def eager(kind: type[O]) -> type[O]:
    """`kind`, whose steps are the same."""
    for name in _MARKED:
        _leave_unmarked(name)
    plain: Callable[..., Any] = inspect.unwrap(kind.step)

    def step(self: O, closure: Callable[[], float] | None = None) -> Any:
        if _compiles() or self.defaults.get("differentiable"):
            return kind.step(self, closure)
        with torch.no_grad():
            return plain(self, closure)

    return type(kind.__name__, (kind,), {"step": step, "__module__": __name__})


def _leave_unmarked(name: str) -> None:
    method = getattr(getattr(Optimizer, name), "__wrapped__", None)
    if method is None or hasattr(method, _MARK):
        return

    def call(*args: Any, **kwargs: Any) -> Any:
        if not _compiles():
            return method(*args, **kwargs)
        delattr(method, _MARK)
        return getattr(Optimizer, name)(*args, **kwargs)  # which marks it

    setattr(method, _MARK, call)
