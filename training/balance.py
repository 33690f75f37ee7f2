"""Classes of unlike frequency: what a row of each weighs, how often it is taken, and what that
does to the probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from raymill.data.schema import InputSchema
from raymill.errors import Problem, SpecError

from .spec import TrainingSpec


@dataclass(frozen=True)
class Balance:
    """What training does about the classes' frequencies.

    Attributes:
        weights: `[K]` of a row's loss by its class; None: all weigh the same.
        rates: `[K]` how often a row of each class is taken in an epoch; None: once.
        offset: what to add to the model's output, one number an output, so that probabilities
            are those of the data and not of the balanced classes; empty: nothing.
    """

    weights: Tensor | None = None
    rates: Tensor | None = None
    offset: tuple[float, ...] = ()

    def on(self, device: torch.device) -> Balance:
        """The same, with the weights where they are used."""
        weights = self.weights.to(device) if self.weights is not None else None
        return replace(self, weights=weights)


def make_balance(spec: TrainingSpec, counts: Tensor, schema: InputSchema) -> Balance:
    """What the spec asks for, given `counts` `[K]` of the training rows' classes.

    Raises:
        SpecError: a regression, or weights for a class that isn't there.
    """
    weights = class_weights(spec.class_weights, counts, schema)
    rates = class_weights(spec.resample, counts, schema, key="resample")
    shift = weights if weights is not None else rates
    offset = prior_offset(shift, schema) if shift is not None and spec.corrects_prior else ()
    return Balance(weights, rates, offset)


def class_weights(
    spec: Literal["none", "balanced"] | Mapping[str, float], counts: Tensor, schema: InputSchema,
    key: str = "class_weights",
) -> Tensor | None:
    """A weight `[K]` a class, of mean 1 over the training rows; None: all rows weigh the same.

    Raises:
        SpecError: weights for a regression, or for a class that isn't there.
    """
    if spec == "none":
        return None
    if schema.classes is None:
        raise SpecError(Problem(rule=f"training.{key} needs a class task", got=schema.task))
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


def prior_offset(shift: Tensor, schema: InputSchema) -> tuple[float, ...]:
    """What takes a `shift` `[K]` of the classes' odds back out of the logits.

    Training that weighs or takes class k `shift[k]` times learns odds that are that much too high
    (Elkan 2001). Classes without a row stay as they are.
    """
    logs = [math.log(value) if value > 0 else 0.0 for value in shift.tolist()]
    if schema.outputs == 1:
        return (logs[0] - logs[1],)
    return tuple(-value for value in logs)


def resampled(targets: Tensor, rates: Tensor, generator: torch.Generator) -> Tensor:
    """Row numbers in which a row of class k occurs `rates[k]` times: floor(rate) times at least,
    and once more for a share of the rows that is drawn. In the order of the classes."""
    taken: list[Tensor] = []
    for number, rate in enumerate(rates.tolist()):
        rows = (targets == number).nonzero().squeeze(1)
        whole = int(rate)
        more = round((rate - whole) * len(rows))
        drawn = rows[torch.randperm(len(rows), generator=generator)[:more]]
        taken += [rows.repeat(whole), drawn]
    return torch.cat(taken)


class Shifted(nn.Module):
    """A model whose output is corrected by an offset `[outputs]`."""

    offset: Tensor

    def __init__(self, model: nn.Module, offset: tuple[float, ...]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("offset", torch.tensor(offset), persistent=False)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        output: Tensor = self.model(batch) + self.offset
        return output
