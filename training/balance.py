"""Classes of unlike frequency: what a row of each weighs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from raymill.data.schema import InputSchema
from raymill.errors import Problem, SpecError


def class_weights(
    spec: Literal["none", "balanced"] | Mapping[str, float], counts: Tensor, schema: InputSchema
) -> Tensor | None:
    """A weight `[K]` a class, of mean 1 over the training rows; None: all rows weigh the same.

    Raises:
        SpecError: weights for a regression, or for a class that isn't there.
    """
    if spec == "none":
        return None
    if schema.classes is None:
        raise SpecError(Problem(rule="training.class_weights needs a class task", got=schema.task))
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
