"""Several models that answer as one: the mean of their probabilities, or of their values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from raymill.data.schema import InputSchema

ENSEMBLE = "ensemble"  # a family of bundles, not of specs: it is made of trained models


class Ensemble(nn.Module):
    """Averages its members' predictions.

    `forward(batch)` returns `[B, schema.outputs]` as every family does: the logits of the mean
    probability (in log space, so that sure members lose nothing), or the mean value.
    """

    def __init__(self, members: Sequence[nn.Module], schema: InputSchema) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self._task = schema.task

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        outputs = torch.stack([member(batch).float() for member in self.members])
        if self._task == "regression":
            return outputs.mean(dim=0)
        if self._task == "multiclass":
            return _log_mean(functional.log_softmax(outputs, dim=2))
        return _log_mean(functional.logsigmoid(outputs)) - _log_mean(functional.logsigmoid(-outputs))


def _log_mean(logs: Tensor) -> Tensor:
    """The logarithm of the mean, over the first dimension, of what `logs` are the logarithms of."""
    return torch.logsumexp(logs, dim=0) - math.log(len(logs))


def params_of(members: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """The parameters of an ensemble of these (family, parameters)."""
    return {"members": [{"family": family, "params": dict(params)} for family, params in members]}


def weights_of(members: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The weights of an ensemble of models with these weights."""
    return {f"members.{index}.{name}": tensor
            for index, weights in enumerate(members) for name, tensor in weights.items()}
