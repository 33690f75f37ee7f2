"""Which fields of the spec a search may vary, and what each of them takes. Free of torch and Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from raymill.specs import PlacedError
from raymill.training.params import DEFAULT_SPACES, FAMILY_PARAMS, follows, is_factory
from raymill.training.spec import TrainingSpec
from raymill.yamls import did_you_mean

from .spec import Dimension, TuningSpec
from .walk import FAMILY, Space

Place = tuple[str, ...]

# How a trial runs, not what comes out: no dimension, and no part of what names a study.
EXECUTION = frozenset({"workers", "strategy", "guard_every", "max_failures", "cpus_per_worker",
                       "checkpoint_every", "watchdog"})
_NOT_SEARCHED = {f"training.{field}" for field in EXECUTION | {"gpu"}}
_TAKE_OUT = "Take it out of tuning.space."
_ELSEWHERE = {
    "data": "the data is prepared once, for all trials",
    "objective": "it is what the trials are judged by",
    "serving": "it is used after the search, so no trial can tell",
    "cluster": "it is used before the search, so no trial can tell",
    "tracking": "it changes nothing of a model",
    "tuning": "it says how the search runs",
    "name": "it names the project",
}


def check_space(space: Space, family: str) -> None:
    """Refuse a space whose dimensions the specs' own fields would refuse.

    `family` is the spec's. Where `model.family` is searched, the parameters of a family stand in
    the branch of that family.

    Raises:
        PlacedError: at the dimension; says what is wrong with it.
    """
    _check_level(space, family, ("tuning", "space"), frozenset())


def _check_level(space: Space, family: str, place: Place, above: frozenset[str]) -> None:
    _refuse_twice(space, place, above)
    known = above | space.keys()
    for path, dimension in space.items():
        here = (*place, path)
        if path == FAMILY:
            _check_families(dimension, here, known)
            continue
        if FAMILY in space and path.startswith("model."):
            raise PlacedError(f"{path} is a parameter of a family, and {FAMILY} is searched: "
                              f"put it into the branch of its family", *here)
        check_values(path, dimension, family, here)
        for option, below in dimension.branches.items():
            _refuse_family(below, (*here, "choice", option))
            _check_level(below, family, (*here, "choice", option), known)


def _check_families(dimension: Dimension, place: Place, known: frozenset[str]) -> None:
    if dimension.choice is None:
        raise PlacedError("families have no order: name them in choice", *place)
    for option in dimension.options:
        here = (*place, "choice", str(option)) if dimension.branches else place
        if not isinstance(option, str) or (option not in FAMILY_PARAMS and not is_factory(option)):
            raise PlacedError(f"there is no family {option!r}"
                              f"{did_you_mean(str(option), list(FAMILY_PARAMS))}", *here)
    for option, below in dimension.branches.items():
        _refuse_family(below, (*place, "choice", option))
        _check_level(below, option, (*place, "choice", option), known)


def _refuse_family(space: Space, place: Place) -> None:
    if FAMILY in space:
        raise PlacedError(f"{FAMILY} is searched at the top of the space or not at all",
                          *place, FAMILY)


def _refuse_twice(space: Space, place: Place, above: frozenset[str]) -> None:
    """A field may be searched in several options of one choice, but else only once."""
    seen = set(above)
    for path, dimension in space.items():
        below = {name for branch in dimension.branches.values() for name in _paths(branch)}
        for name in ({path} & above) | (below & (seen | space.keys())):
            raise PlacedError(f"{name} is searched twice", *place, path)
        seen |= below


def check_points(tuning: TuningSpec, family: str) -> None:
    """Refuse a stated point that names what the space does not search, or a value outside of it.

    `family` is the spec's: with no space stated, its default one is searched. Of `auto` it is the
    data that tells.

    Raises:
        PlacedError: at the field of the point.
    """
    searched: dict[str, list[Dimension]] = {}
    for path, dimension in _dimensions(tuning.space or _default(family)):
        searched.setdefault(path, []).append(dimension)
    for number, point in enumerate(tuning.points if searched else ()):
        for path, value in point.items():
            place = ("tuning", "points", number, path)
            if path not in searched:
                raise PlacedError(f"{path} is not searched{did_you_mean(path, sorted(searched))}",
                                  *place, cure=f"Searched are: {', '.join(sorted(searched))}.")
            if not any(dimension.holds(value) for dimension in searched[path]):
                raise PlacedError(f"a point lies in the space, but got {value!r}", *place,
                                  cure="Change it, or widen its dimension of tuning.space.")


def _default(family: str) -> Space:
    return {path: Dimension(**said) for path, said in DEFAULT_SPACES.get(family, {}).items()}


def _dimensions(space: Space) -> Iterator[tuple[str, Dimension]]:
    """Every dimension by its field; families in a plain list bring their default spaces."""
    for path, dimension in space.items():
        yield path, dimension
        for below in dimension.branches.values():
            yield from _dimensions(below)
        if path == FAMILY and not dimension.branches:
            for option in dimension.options:
                yield from _default(str(option)).items()


def _paths(space: Space) -> Iterator[str]:
    for path, dimension in space.items():
        yield path
        for below in dimension.branches.values():
            yield from _paths(below)


def check_values(path: str, dimension: Dimension, family: str, place: Place) -> None:
    """Every searched value must be one that the field itself takes.

    Raises:
        PlacedError: there is no such field, it can't be searched, or it refuses a value.
    """
    annotation = field_type(path, family, place)
    if annotation is None:
        return
    for value in dimension.options if dimension.choice is not None else _some(dimension):
        if (reason := refusal(annotation, value)) is not None:
            raise PlacedError(f"{value!r} is refused: {reason}", *place,
                              cure=f"Search values that {path} itself takes.")


def _some(dimension: Dimension) -> list[int | float]:
    """The ends of a range, and its first value above low when it has steps."""
    assert dimension.low is not None and dimension.high is not None
    steps = [] if dimension.step is None else [dimension.low + dimension.step]
    return [dimension.low, dimension.high, *steps]


def refusal(annotation: Any, value: Any) -> str | None:
    """Why a field of this type refuses `value`; None when it takes it."""
    try:
        TypeAdapter(annotation).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        return str(error.errors()[0]["msg"])
    return None


def takes_fractions(path: str, family: str) -> bool:
    """Whether a number between two whole ones is a value of the field."""
    annotation = field_type(path, family, ())
    return annotation is not None and refusal(annotation, 0.5) is None


def field_type(path: str, family: str, place: Place) -> Any:
    """The type of the field that a dotted `path` names; None: it is known to the user's code only.

    Raises:
        PlacedError: there is no such field, or it can't be searched.
    """
    if path in _NOT_SEARCHED:
        raise PlacedError(f"{path} can't be searched: it says how training runs, not what comes "
                          "out", *place, cure=_TAKE_OUT)
    if path == "model.regrow":
        raise PlacedError(f"{path} can't be searched: it comes after the search, so no trial can "
                          "tell", *place, cure=_TAKE_OUT)
    room, _, field = path.partition(".")
    if room in _ELSEWHERE:
        raise PlacedError(f"{path} can't be searched: {_ELSEWHERE[room]}", *place, cure=_TAKE_OUT)
    if room == "training" and not follows(family, field):
        raise PlacedError(f"{path} can't be searched: model.family {family} does not use it",
                          *place, cure=_TAKE_OUT)
    parts: dict[str, type[BaseModel]] = {"training": TrainingSpec}
    if family in FAMILY_PARAMS:
        parts["model"] = FAMILY_PARAMS[family]
    elif room == "model" and is_factory(family):
        return None
    elif room == "model":
        raise PlacedError("searching a model parameter needs model.family", *place)
    found = _walk(parts[room], field.split(".")) if room in parts else None
    if found is None:
        known = [f"{r}.{f}" for r, part in parts.items() for f in part.model_fields]
        there = [each for each in known if each.startswith(f"{room}.")]
        raise PlacedError(
            f"there is no field {path!r}{did_you_mean(path, known)}", *place,
            cure=f"Fields are: {', '.join(sorted({*there} - _NOT_SEARCHED))}." if there else
            "A field starts with model. or training.")
    return found


def _walk(part: Any, keys: list[str]) -> Any:
    """The type at the end of `keys` below `part`; None: there is no such field."""
    parts = (part, *get_args(part))  # a part of the spec, or that or None
    info = next((p.model_fields[keys[0]] for p in parts
                 if keys[0] in getattr(p, "model_fields", {})), None)
    if info is None:
        return None
    if len(keys) > 1:
        return _walk(info.annotation, keys[1:])
    return Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
