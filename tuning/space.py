"""The search space: the spec's dimensions as Optuna's, and drawn values put back into the specs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from raymill.errors import UsageError
from raymill.training.params import DEFAULT_SPACES
from raymill.training.spec import ModelSpec, TrainingSpec

from .spec import Dimension

Space = Mapping[str, Dimension]


# How a trial runs, not what comes out: no dimension, and no part of what names a study.
EXECUTION = frozenset({"workers", "max_failures", "cpus_per_worker"})
_NOT_SEARCHED = {f"training.{field}" for field in EXECUTION | {"gpu"}}


def space_for(
    family: str, space: Space, stated: frozenset[str] = frozenset()
) -> dict[str, Dimension]:
    """`space`, or when it is empty the default one of `family` without the `stated` fields.

    Raises:
        UsageError: `space` names a field that says how training runs; `family` is a factory of
            the user's own, for which no default is known; or every field of the default is stated.
    """
    if space:
        refused = sorted(_NOT_SEARCHED & space.keys())
        if refused:
            raise UsageError(f"{refused[0]} can't be searched: it says how training runs, not what "
                             "comes out", cure=f"Take {refused[0]} out of tuning.space.")
        return dict(space)
    if family not in DEFAULT_SPACES:
        raise UsageError(
            f"no search space is known for the model family {family!r}",
            cure="Name one in tuning.space, or set tuning.trials to 0.",
        )
    default = {path: Dimension(**fields) for path, fields in DEFAULT_SPACES[family].items()
               if path not in stated}
    if not default:
        raise UsageError(
            f"nothing left to search: the spec states every field of the default space of {family}",
            cure="Leave some out, name a tuning.space, or set tuning.trials to 0.",
        )
    return default


def stated_fields(model: ModelSpec, training: TrainingSpec) -> frozenset[str]:
    """Dotted paths of the fields that the user wrote, as far as a space may hold them."""
    return frozenset(
        [f"model.{field}" for field in model.params]
        + [f"training.{field}" for field in training.model_fields_set]
    )


def to_optuna(space: Space) -> dict[str, BaseDistribution]:
    return {path: _distribution(dimension) for path, dimension in space.items()}


def decode(space: Space, drawn: Mapping[str, Any]) -> dict[str, Any]:
    """Optuna's values as the spec's: a choice that is no scalar is drawn by its JSON text."""
    return {path: _decoded(space[path], value) for path, value in drawn.items()}


def encode(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `decode`, for the values that lie in the space; others are left out."""
    labels = {path: _label(params[path]) for path in space if path in params}
    return {path: label for path, label in labels.items() if _contains(space[path], label)}


def own_values(model: ModelSpec, training: TrainingSpec, family: str, space: Space) -> dict[str, Any]:
    """What the specs say of the searched fields, where that lies in the space."""
    parts = {"model": model.resolved(family), "training": training.model_dump()}
    said = {}
    for path in space:
        room, _, field = path.partition(".")
        if field in parts[room]:
            said[path] = parts[room][field]
    return encode(space, said)


def with_params(
    model: ModelSpec, training: TrainingSpec, params: Mapping[str, Any]
) -> tuple[ModelSpec, TrainingSpec]:
    """The specs with the fields that `params` names by dotted path (`model.width`) replaced.

    Raises:
        pydantic.ValidationError: a value that its field refuses.
    """
    fields: dict[str, dict[str, Any]] = {
        "model": model.model_dump(),
        "training": training.model_dump(),
    }
    for path, value in params.items():
        room, _, field = path.partition(".")
        fields[room][field] = value
    return ModelSpec.model_validate(fields["model"]), TrainingSpec.model_validate(
        fields["training"]
    )


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.choice is not None:
        return CategoricalDistribution([_label(value) for value in dimension.choice])
    low, high, step = dimension.low, dimension.high, dimension.step
    assert low is not None and high is not None
    if step is not None:
        high = low + int((high - low) / step + 1e-9) * step  # Optuna warns of a last part step
    if dimension.integer:
        return IntDistribution(int(low), int(high), log=dimension.log, step=int(step or 1))
    return FloatDistribution(low, high, log=dimension.log, step=step)


def _contains(dimension: Dimension, label: Any) -> bool:
    if dimension.choice is not None:
        return label in [_label(value) for value in dimension.choice]
    distribution = _distribution(dimension)
    number = isinstance(label, int | float) and not isinstance(label, bool)
    return number and bool(distribution._contains(distribution.to_internal_repr(label)))


def _label(value: Any) -> Any:
    scalar = value is None or isinstance(value, bool | int | float | str)
    return value if scalar else json.dumps(value, sort_keys=True)


def _decoded(dimension: Dimension, drawn: Any) -> Any:
    if dimension.choice is None:
        return drawn
    return next(value for value in dimension.choice if _label(value) == drawn)
