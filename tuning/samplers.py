"""Which sampler draws a trial, what each can't do, and the points of a grid."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)

from raymill.errors import UsageError

from .cube import CmaEsSampler, SobolSampler
from .space import to_optuna
from .spec import Dimension, TuningSpec, label
from .walk import Space, flat

LARGEST_GRID = 100_000


def sampler_for(tuning: TuningSpec, space: Space, index: int) -> BaseSampler:
    """The sampler of the `index`th trial, new for each: what it draws depends on the seed, the
    index and the study's finished trials alone, so a resumed search draws what an unbroken one
    does."""
    seed = (tuning.seed * 1_000_003 + index) % 2**32
    # A short search would otherwise be all random start.
    startup = max(4, min(10, tuning.trials // 4))
    population = max(4, min(50, tuning.trials // 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match tuning.sampler:
            case "tpe":
                return TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=startup)
            case "gp":
                return GPSampler(seed=seed, n_startup_trials=startup)
            case "nsga2":
                return NSGAIISampler(seed=seed, population_size=population)
            case "nsga3":
                return NSGAIIISampler(seed=seed, population_size=population)
            case "cmaes":
                return CmaEsSampler(always_numbers(space), seed)
            case "qmc":
                return SobolSampler(to_optuna(space), tuning.seed, index)
    return RandomSampler(seed=seed)  # a grid's points are queued, so nothing is left to draw


def always_numbers(space: Space) -> dict[str, BaseDistribution]:
    """The numbers that every trial has, whatever branch it takes."""
    return {path: given for path, given in to_optuna(space).items()
            if path in space and isinstance(given, FloatDistribution | IntDistribution)}


def limits_of(tuning: TuningSpec, space: Space) -> list[str]:
    """What the sampler will not do with this space, to be told before it starts.

    Raises:
        UsageError: it can't search the space at all.
    """
    branches = any(dimension.branches for _, _, dimension in flat(space))
    if tuning.sampler == "cmaes":
        return _cmaes_limits(space)
    if tuning.sampler == "grid":
        return _grid_limits(tuning, space)
    notes = []
    if tuning.sampler in ("gp", "nsga2", "nsga3") and branches:
        notes.append(f"{tuning.sampler} learns of what every trial has; what stands in a branch "
                     "is drawn at random (tpe learns there too)")
    if tuning.sampler in ("nsga2", "nsga3", "gp") and tuning.pruning not in ("none", "pbt"):
        notes.append(f"{tuning.sampler} learns from whole trials only: those that "
                     f"{tuning.pruning} stops teach it nothing")
    return notes


def _cmaes_limits(space: Space) -> list[str]:
    numbers = always_numbers(space)
    if len(numbers) < 2:
        raise UsageError(f"cmaes searches two or more numbers outside of branches, but this space "
                         f"has {len(numbers)}", cure="Take tuning.sampler: tpe.")
    rest = [name for name, _, _ in flat(space) if name not in numbers]
    return [f"cmaes moves numbers only; {', '.join(rest)} are drawn at random"] if rest else []


def _grid_limits(tuning: TuningSpec, space: Space) -> list[str]:
    size = grid_size(space)
    if size < tuning.trials:
        return [f"the grid has {size} points, so {size} trials are run, not {tuning.trials}"]
    if size > tuning.trials:
        return [f"{tuning.trials} of the grid's {size} points are tried, drawn by the seed"]
    return []


def grid_size(space: Space) -> int:
    """How many points the grid of a space has.

    Raises:
        UsageError: a dimension has no steps, or the grid is too large.
    """
    size = 1
    for path, dimension in space.items():
        below = [grid_size(branch) for branch in dimension.branches.values()]
        size *= sum(below) if below else len(_steps(path, dimension))
    if size > LARGEST_GRID:
        raise UsageError(f"a grid has at most {LARGEST_GRID} points, but this one has {size}",
                         cure="Take larger steps, or tuning.sampler: qmc.")
    return size


def grid(space: Space, seed: int) -> list[dict[str, Any]]:
    """Every point of the grid, in an order that the seed shuffles: a part of it covers all."""
    grid_size(space)
    points = list(_points(list(space.items()), ""))
    random.Random(seed).shuffle(points)
    return points


def _points(dimensions: list[tuple[str, Dimension]], prefix: str) -> Iterator[dict[str, Any]]:
    if not dimensions:
        yield {}
        return
    (path, dimension), *others = dimensions
    for value in _steps(path, dimension):
        option, below = dimension.branch(value)
        for inner in _points(list(below.items()), f"{prefix}{option}/"):
            for rest in _points(others, prefix):
                yield {prefix + path: value, **inner, **rest}


def _steps(path: str, dimension: Dimension) -> list[Any]:
    if dimension.choice is not None:
        return [label(value) for value in dimension.options]
    given = to_optuna({path: dimension})[path]
    assert isinstance(given, FloatDistribution | IntDistribution)
    if given.step is None:
        raise UsageError(f"a grid needs steps, but {path} has every number from {given.low:g} to "
                         f"{given.high:g}", cure="Give it a step or a choice.")
    if (count := int((given.high - given.low) / given.step + 1e-9) + 1) > LARGEST_GRID:
        raise UsageError(f"a grid has at most {LARGEST_GRID} points, but {path} alone has {count}",
                         cure="Give it a larger step.")
    return [given.low + number * given.step for number in range(count)]
