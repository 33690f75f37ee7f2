"""The ways through a space, and drawn values put back into the specs. Free of Optuna.

A field in the branch of an option is known to Optuna as `option/field`: the same field may stand in
the branches of several options with ranges of its own. Everywhere else a value goes by its field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from raymill.training.spec import ModelSpec, TrainingSpec

from .spec import Dimension

FAMILY = "model.family"
Space = Mapping[str, Dimension]


class Left:
    """Says that a dimension has no value."""


def flat(space: Space, prefix: str = "") -> Iterator[tuple[str, str, Dimension]]:
    """Every dimension of every branch: its name for Optuna, its field, itself."""
    for path, dimension in space.items():
        yield prefix + path, path, dimension
        for option, below in dimension.branches.items():
            yield from flat(below, f"{prefix}{option}/")


def active(
    space: Space, choose: Callable[[str, str, Dimension], Any], prefix: str = ""
) -> Iterator[tuple[str, str, Any]]:
    """Go down the branches that `choose(name, field, dimension)` takes.

    Yields each name, field and chosen label; one chosen as `Left` is left out, as is what is below.
    """
    for path, dimension in space.items():
        chosen = choose(prefix + path, path, dimension)
        if chosen is Left:
            continue
        yield prefix + path, path, chosen
        option, below = dimension.branch(chosen)
        yield from active(below, choose, f"{prefix}{option}/")


def with_params(
    model: ModelSpec, training: TrainingSpec, params: Mapping[str, Any]
) -> tuple[ModelSpec, TrainingSpec]:
    """The specs with the fields that `params` names by dotted path (`model.width`) replaced.

    Another family than the spec's starts from that family's own defaults.

    Raises:
        pydantic.ValidationError: a value that its field refuses.
    """
    fields: dict[str, Any] = {
        "model": model.model_dump(),
        "training": training.model_dump(),
    }
    if params.get(FAMILY, model.family) != model.family:
        fields["model"] = {}
    for path, value in params.items():
        *above, field = path.split(".")
        spot = fields
        for key in above:
            spot = spot[key]
        spot[field] = value
    return ModelSpec.model_validate(fields["model"]), TrainingSpec.model_validate(
        fields["training"]
    )
