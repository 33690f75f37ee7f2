"""Searched values that can never go together with the rest of the spec. Free of torch and Optuna."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from raymill.specs import PlacedError
from raymill.training.params import FOLLOWED
from raymill.training.spec import ModelSpec, TrainingSpec

from .fields import takes_fractions
from .spec import Dimension, TuningSpec
from .walk import FAMILY, Space, with_params

MOST = 1000  # sets of values that are tried for one; where none of so many fits, nothing is said
Values = dict[str, Any]


def check_conflicts(space: Space, model: ModelSpec, training: TrainingSpec) -> None:
    """Refuse a space that has a value with which every trial would fail.

    That is an option, or an end of a range, which the specs refuse whatever is drawn beside it:
    `training.momentum` where the optimizer is always adamw.

    Raises:
        PlacedError: at the dimension; says why the specs refuse it.
    """
    for path, dimension in space.items():
        for place, value, below in _tried(path, dimension, ("tuning", "space")):
            beside = {other: part for other, part in space.items() if other != path}
            why = _refused(value, {**beside, **below}, model, training)
            if why:
                raise PlacedError(f"{why}; every trial with {_words(value)} would fail", *place)


def check_refit(tuning: TuningSpec, training: TrainingSpec, families: Collection[str]) -> None:
    """Refuse a refit or an ensemble that can't be made of what may win.

    `families` is the spec's, or those that `auto` stands for.

    Raises:
        PlacedError: at `tuning.refit` or `tuning.ensemble`.
    """
    if not tuning.trials:
        return
    space = tuning.space
    trees = sorted(FOLLOWED.keys() & {*families, *_options(space, FAMILY)})
    if tuning.refit == "checkpoint" and trees:
        raise PlacedError(f"refit: checkpoint begins training with weights, and {trees[0]} has "
                          "none: take scratch or none, or name a family of networks in "
                          "model.family", "tuning", "refit")
    key = "ensemble" if tuning.ensemble else "refit"
    if (tuning.ensemble or tuning.refit == "none") and _may_correct(space, training):
        raise PlacedError("training.prior_correction corrects one model, which is trained anew: "
                          "set refit to scratch and leave out ensemble, or set prior_correction "
                          "to false", "tuning", key)


def check_sampler(tuning: TuningSpec, family: str) -> None:
    """Refuse a grid of what has no steps, and a sampler of numbers where there are too few.

    Raises:
        PlacedError: at the dimension, or at `tuning.sampler`.
    """
    if tuning.sampler == "grid" and tuning.trials:
        if not tuning.space:
            raise PlacedError("a grid is of a space with steps, which no family's default one has",
                              "tuning", "sampler", cure="Name a tuning.space, or take qmc.")
        _check_steps(tuning.space, family, ("tuning", "space"))
    numbers = [path for path, dimension in tuning.space.items() if dimension.choice is None]
    if tuning.sampler == "cmaes" and tuning.space and len(numbers) < 2:
        raise PlacedError("cmaes searches two or more numbers outside of branches, but got "
                          f"{len(numbers)}", "tuning", "sampler", cure="Take tpe.")


def _check_steps(space: Space, family: str, place: tuple[str, ...]) -> None:
    for path, dimension in space.items():
        here = (*place, path)
        for option, below in dimension.branches.items():
            own = option if path == FAMILY else family
            _check_steps(below, own, (*here, "choice", option))
        if dimension.choice is None and dimension.step is None and not (
                dimension.integer and not takes_fractions(path, family)):
            raise PlacedError(f"a grid needs steps, but got every number from {dimension.low:g} to "
                              f"{dimension.high:g}", *here, cure="Give it a step or a choice.")


def _may_correct(space: Space, training: TrainingSpec) -> bool:
    """Whether a trial's probabilities may have to be brought back to the classes' frequencies."""
    corrections = _options(space, "training.prior_correction") or [training.prior_correction]
    resamples = _options(space, "training.resample") or [training.resample]
    return any(bool(correction) or (correction is None and resample != "none")
               for correction in corrections for resample in resamples)


def _options(space: Space, path: str) -> list[Any]:
    """Every option of a field, in whichever branch it is searched."""
    found = []
    for each, dimension in space.items():
        found += dimension.options if each == path else []
        for below in dimension.branches.values():
            found += _options(below, path)
    return found


def _tried(
    path: str, dimension: Dimension, place: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Values, Space]]:
    """Each value of a dimension and of those in its branches: its place, the values that it needs
    (the options above it), and what is searched beside it there."""
    here = (*place, path)
    for value in _ends(dimension):
        _, below = dimension.branch(value)
        yield here, {path: value}, below
    for option, below in dimension.branches.items():
        chosen = next(v for v in dimension.options if dimension.branch(v)[0] == option)
        for inner, part in below.items():
            beside = {other: p for other, p in below.items() if other != inner}
            for at, values, deeper in _tried(inner, part, (*here, "choice", option)):
                yield at, {path: chosen, **values}, {**beside, **deeper}


def _ends(dimension: Dimension) -> list[Any]:
    return dimension.options if dimension.choice is not None else [dimension.low, dimension.high]


def _refused(values: Values, beside: Space, model: ModelSpec, training: TrainingSpec) -> str:
    """Why the specs refuse `values` with all that may be drawn `beside`; empty: they need not."""
    why = ""
    for count, each in enumerate(_sets(values, beside), start=1):
        why = _problem(each, model, training) if count <= MOST else ""
        if not why:
            break
    return why


def _sets(values: Values, beside: Mapping[str, Dimension]) -> Iterator[Values]:
    """`values` with each set of what is drawn beside; of a range its low end."""
    if not beside:
        yield values
        return
    path, dimension = next(iter(beside.items()))
    rest = {other: part for other, part in beside.items() if other != path}
    for value in _ends(dimension)[: None if dimension.choice is not None else 1]:
        _, below = dimension.branch(value)
        yield from _sets({**values, path: value}, {**rest, **below})


def _problem(values: Values, model: ModelSpec, training: TrainingSpec) -> str:
    try:
        with_params(model, training, values)
    except ValidationError as error:
        return str(error.errors()[0]["msg"]).removeprefix("Value error, ")
    return ""


def _words(values: Values) -> str:
    return ", ".join(f"{path}: {value}" for path, value in values.items())
