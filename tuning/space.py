"""The search space: the spec's dimensions as Optuna's, and drawn values back by their fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from raymill.errors import UsageError
from raymill.specs import PlacedError
from raymill.training.params import DEFAULT_SPACES
from raymill.training.spec import ModelSpec, TrainingSpec

from .fields import check_space, takes_fractions
from .spec import Dimension, label
from .walk import FAMILY, Left, Space, active, flat


def space_for(
    family: str, space: Space, stated: frozenset[str] = frozenset()
) -> dict[str, Dimension]:
    """`space`, or when it is empty the default one of `family` without the `stated` fields.

    Families in a plain list bring their default spaces along, without what is searched beside.

    Raises:
        UsageError: `space` names a field that can't be searched or a value that its field refuses;
            `family` is a factory of the user's own, for which no default is known; or every field
            of the default is stated.
    """
    if not space:
        return _typed(_default(family, stated), family)
    chosen = dict(space)
    if FAMILY in chosen and not chosen[FAMILY].branches:
        options = chosen[FAMILY].options
        branches = {option: _known_default(option, stated | space.keys()) for option in options}
        chosen[FAMILY] = Dimension(choice=branches)
    try:
        check_space(chosen, family)
    except PlacedError as error:
        raise UsageError(f"{'.'.join(map(str, error.place))}: {error}", cure="Mend tuning.space.") from None
    return _typed(chosen, family)


def _default(family: str, stated: frozenset[str]) -> dict[str, Dimension]:
    if family not in DEFAULT_SPACES:
        raise UsageError(
            f"no search space is known for the model family {family!r}",
            cure="Name one in tuning.space, or set tuning.trials to 0.",
        )
    default = _known_default(family, stated)
    if not default:
        raise UsageError(
            f"nothing left to search: the spec states every field of the default space of {family}",
            cure="Leave some out, name a tuning.space, or set tuning.trials to 0.",
        )
    return default


def _known_default(family: str, stated: frozenset[str]) -> dict[str, Dimension]:
    return {path: Dimension(**fields) for path, fields in DEFAULT_SPACES.get(family, {}).items()
            if path not in stated}


def _typed(space: Space, family: str) -> dict[str, Dimension]:
    """Whole bounds of a field that takes fractions are bounds of fractions."""
    typed = {}
    for path, dimension in space.items():
        changes: dict[str, Any] = {}
        if dimension.integer and takes_fractions(path, family):
            changes = {"low": float(dimension.low or 0), "high": float(dimension.high or 0)}
        if dimension.branches:
            changes = {"choice": {
                option: _typed(below, option if path == FAMILY else family)
                for option, below in dimension.branches.items()}}
        typed[path] = dimension.model_copy(update=changes)
    return typed


def stated_fields(model: ModelSpec, training: TrainingSpec) -> frozenset[str]:
    """Dotted paths of the fields that the user wrote, as far as a space may hold them."""
    return frozenset(
        [f"model.{field}" for field in model.params]
        + [f"training.{field}" for field in training.model_fields_set]
    )


def to_optuna(space: Space) -> dict[str, BaseDistribution]:
    """Every dimension's distribution, by its name for Optuna."""
    return {name: _distribution(dimension) for name, _, dimension in flat(space)}


def draw(space: Space, suggest: Callable[[str, BaseDistribution], Any]) -> dict[str, Any]:
    """Ask for each dimension of the branches drawn: define-by-run, in the order of the space."""
    def choose(name: str, path: str, dimension: Dimension) -> Any:
        return suggest(name, _distribution(dimension))

    return {name: chosen for name, _, chosen in active(space, choose)}


def decode(space: Space, drawn: Mapping[str, Any]) -> dict[str, Any]:
    """Optuna's values as the spec's, by field: a choice that is no scalar is drawn by its text."""
    return {path: _decoded(dimension, drawn[name])
            for name, path, dimension in flat(space) if name in drawn}


def encode(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `decode`, for the values that lie in the space; others are left out."""
    def choose(name: str, path: str, dimension: Dimension) -> Any:
        if path not in params or not _contains(dimension, label(params[path])):
            return Left
        return label(params[path])

    return {name: chosen for name, _, chosen in active(space, choose)}


def complete(space: Space, drawn: Mapping[str, Any]) -> bool:
    """Whether every dimension of the branches taken has a value."""
    names = [name for name, _, _ in active(space, lambda name, *_: drawn.get(name, ""))]
    return all(name in drawn for name in names)


def own_values(model: ModelSpec, training: TrainingSpec, family: str, space: Space) -> dict[str, Any]:
    """What the specs say of the searched fields, where that lies in the space."""
    parts = {"model": {"family": family, **model.resolved(family)},
             "training": training.model_dump()}
    said = {}
    for _, path, _ in flat(space):
        value: Any = parts
        for key in path.split("."):
            value = value.get(key, Left) if isinstance(value, dict) else Left
        if value is not Left:
            said[path] = value
    return encode(space, said)


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.choice is not None:
        return CategoricalDistribution([label(value) for value in dimension.options])
    low, high, step = dimension.low, dimension.high, dimension.step
    assert low is not None and high is not None
    if step is not None:
        high = low + int((high - low) / step + 1e-9) * step  # Optuna warns of a last part step
    if dimension.integer:
        return IntDistribution(int(low), int(high), log=dimension.log, step=int(step or 1))
    return FloatDistribution(low, high, log=dimension.log, step=step)


def _contains(dimension: Dimension, drawn: Any) -> bool:
    if dimension.choice is not None:
        return drawn in [label(value) for value in dimension.options]
    distribution = _distribution(dimension)
    number = isinstance(drawn, int | float) and not isinstance(drawn, bool)
    return number and bool(distribution._contains(distribution.to_internal_repr(drawn)))


def _decoded(dimension: Dimension, drawn: Any) -> Any:
    if dimension.choice is None:
        return drawn
    return next(value for value in dimension.options if label(value) == drawn)
