"""Samplers over the unit cube whose whole state is the trials: no pickle in a study, and a search
that was cut off goes on with what it would have drawn."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

Distributions = Mapping[str, BaseDistribution]


def from_unit(given: BaseDistribution, share: float) -> Any:
    """The value that lies at `share` (0 to 1) of a distribution; each choice has an equal part."""
    share = min(max(share, 0.0), 1.0)
    if isinstance(given, CategoricalDistribution):
        return given.choices[min(int(share * len(given.choices)), len(given.choices) - 1)]
    assert isinstance(given, FloatDistribution | IntDistribution)
    low, high = _bounds(given)
    place = low + share * (high - low)
    value = math.exp(place) if given.log else place
    if given.step is not None:
        value = given.low + round((value - given.low) / given.step) * given.step
    value = min(max(value, given.low), given.high)
    return int(value) if isinstance(given, IntDistribution) else float(value)


def to_unit(given: FloatDistribution | IntDistribution, value: float) -> float:
    """The inverse of `from_unit`, for numbers."""
    low, high = _bounds(given)
    place = math.log(value) if given.log else float(value)
    return (place - low) / (high - low)


def _bounds(given: FloatDistribution | IntDistribution) -> tuple[float, float]:
    """The ends in the scale that is sampled: those of a stepped one reach half a step further, so
    that its ends are drawn as often as the others."""
    half = given.step / 2 if given.step is not None else 0.0
    low, high = given.low - half, given.high + half
    return (math.log(low), math.log(high)) if given.log else (low, high)


class _Whole(BaseSampler):  # type: ignore[misc]
    """Draws its part of the space at once, the rest at random."""

    def __init__(self, space: Distributions, seed: int) -> None:
        self._space = dict(space)
        self._rest = RandomSampler(seed=seed)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._space

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str,
                           param_distribution: BaseDistribution) -> Any:
        return self._rest.sample_independent(study, trial, param_name, param_distribution)


class SobolSampler(_Whole):
    """The next point of a scrambled Sobol sequence, over every dimension of every branch."""

    def __init__(self, space: Distributions, seed: int, index: int) -> None:
        super().__init__(space, seed)
        self._seed, self._index = seed, index

    def sample_relative(self, study: Study, trial: FrozenTrial,
                        search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        from scipy.stats import qmc

        engine = qmc.Sobol(len(search_space), rng=self._seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the first n points are balanced for n = 2^k
            point = engine.random(self._index + 1)[-1]
        return {name: from_unit(given, share)
                for (name, given), share in zip(search_space.items(), point, strict=True)}


class CmaEsSampler(_Whole):
    """CMA-ES (Hansen 2016, arXiv:1604.00772) over the numbers that every trial has.

    Optuna's own keeps the optimizer as a pickle in the study; here it is told all finished
    generations again, which takes milliseconds.
    """

    def __init__(self, space: Distributions, seed: int) -> None:
        super().__init__(space, seed)
        self._seed = seed

    def sample_relative(self, study: Study, trial: FrozenTrial,
                        search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        from cmaes import CMA

        size = len(search_space)
        optimizer = CMA(mean=np.full(size, 0.5), sigma=0.25, seed=self._seed,
                        bounds=np.tile([0.0, 1.0], (size, 1)))
        finished = _generations(study)
        while len(found := finished.get(optimizer.generation, [])) >= optimizer.population_size:
            optimizer.tell([self._solution(study, one)
                            for one in found[: optimizer.population_size]])
        study._storage.set_trial_system_attr(trial._trial_id, GENERATION, optimizer.generation)
        return {name: from_unit(given, share) for (name, given), share in
                zip(search_space.items(), optimizer.ask(), strict=True)}

    def _solution(self, study: Study, trial: FrozenTrial) -> tuple[Any, float]:
        place = [to_unit(given, trial.params[name])
                 for name, given in self._space.items()]
        value = trial.value if trial.value is not None else math.inf
        maximize = study.direction == optuna.study.StudyDirection.MAXIMIZE
        return np.clip(np.array(place), 0, 1), -value if maximize else value


GENERATION = "raymill:generation"


def _generations(study: Study) -> dict[int, Sequence[FrozenTrial]]:
    """The trials that CMA-ES drew and that have a value, pruned ones too, by generation."""
    found: dict[int, list[FrozenTrial]] = {}
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    for trial in ended:
        if GENERATION in trial.system_attrs and trial.value is not None:
            found.setdefault(trial.system_attrs[GENERATION], []).append(trial)
    return dict(found)
