"""A moving average of the weights (Polyak and Juditsky 1992): evaluated and exported in their
place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .strategy import held_here, like


class Ema:
    """Exponential averages of a model's parameters, which training itself does not see.

    Early on the average spans as many steps as there were, so that the first weights are soon
    forgotten: the decay after t steps is the lesser of `decay` and (1 + t) / (10 + t).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self._parameters = dict(model.named_parameters())
        self._averages = {n: p.detach().clone() for n, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(held_here(self._averages.values()),
                             held_here(self._parameters.values()), 1 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the model has the averages for its weights."""
        own = [p.detach().clone() for p in self._parameters.values()]
        self._set(self._averages.values())
        try:
            yield
        finally:
            self._set(own)

    @torch.no_grad()
    def _set(self, values: Iterable[Tensor]) -> None:
        torch._foreach_copy_(held_here(self._parameters.values()), held_here(values))

    def state_dict(self) -> Mapping[str, Any]:
        """The averages by the parameter's name, and `steps`."""
        return {**self._averages, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What `state_dict` gave."""
        self.steps = int(state["steps"])
        for name, average in self._averages.items():
            average.copy_(like(state[name], average))
