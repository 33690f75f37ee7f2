"""Population based training (Jaderberg et al. 2017, arXiv:1711.09846), as generations of trials.

A trial is one member's share of the epochs. In the next generation the members that did worst take
over the weights and the parameters of one that did best, and vary the parameters; the others go on
with their own. What each trial does follows from the seed and the generation before, so a search
that was cut off goes on as it would have.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution

from raymill.errors import UsageError
from raymill.stores import Store
from raymill.training.params import FOLLOWED
from raymill.training.spec import TrainingSpec

from .cube import from_unit
from .records import TrialRecord
from .space import to_optuna
from .spec import TuningSpec
from .walk import Space, flat

QUANTILE, RESAMPLED, FACTORS = 0.25, 0.25, (0.8, 1.2)
# Fields that may change while the weights stay; all others are taken over with the weights.
VARIED = frozenset({"training.lr", "training.weight_decay", "training.clip_norm", "model.dropout"})


@dataclass(frozen=True)
class Segment:
    """One trial: `member` of `generation` (from 0), which trains the epochs from `start` to `until`.

    `donor` is the number of the trial whose checkpoint it starts from; None: from scratch.
    """

    generation: int
    member: int
    start: int
    until: int
    donor: int | None = None


class Population:
    """Plans the segments of a search of `trials` trials over `epochs` epochs."""

    def __init__(self, tuning: TuningSpec, space: Space, training: TrainingSpec, family: str) -> None:
        """Raises UsageError: it can't be done with this model or these epochs."""
        self.size = tuning.population or max(2, min(16, max(4, tuning.trials // 4), tuning.trials))
        self.generations = math.ceil(tuning.trials / self.size)
        self._epochs = training.epochs
        self._seed = tuning.seed
        self._distributions = to_optuna(space)
        self._varied = {name: self._distributions[name] for name, path, _ in flat(space)
                        if path in VARIED
                        and isinstance(self._distributions[name], FloatDistribution)}
        self._check(tuning, space, family)

    def _check(self, tuning: TuningSpec, space: Space, family: str) -> None:
        if not self._varied:
            raise UsageError(f"pbt varies {', '.join(sorted(VARIED))}, but none of them is searched",
                             cure="Search one of them, or take another tuning.scheduler.")
        if family in FOLLOWED or any(path == "model.family" for path in space):
            raise UsageError("pbt goes on with the weights of one family of networks",
                             cure="State model.family, or take another tuning.scheduler.")
        if any(path == "training.epochs" for path in space):
            raise UsageError("pbt shares out training.epochs, so it can't be searched",
                             cure="Take it out of tuning.space.")
        if self.generations > self._epochs:
            raise UsageError(
                f"{tuning.trials} trials of a population of {self.size} are {self.generations} "
                f"generations, which share {self._epochs} epochs: not one each",
                cure="Raise training.epochs or tuning.population, or lower tuning.trials.")
        if tuning.resources.workers > 1:
            raise UsageError("pbt trains its trials on one worker each",
                             cure="Set tuning.resources.workers to 1.")

    def words(self) -> str:
        """The plan, for the user."""
        return (f"population of {self.size}, {self.generations} generations of "
                f"{self._ends(0)} epochs: a trial is one member's share")

    def _ends(self, generation: int) -> int:
        """The last epoch of a generation."""
        return math.ceil(self._epochs * (generation + 1) / self.generations)

    def segment(self, index: int, donor: int | None = None) -> Segment:
        """The `index`th segment of the search."""
        generation, member = divmod(index, self.size)
        start = self._ends(generation - 1) if generation else 0
        return Segment(generation, member, start, self._ends(generation), donor)

    def next(
        self, index: int, before: Mapping[int, TrialRecord], maximize: bool
    ) -> tuple[dict[str, Any], Segment]:
        """The parameters of the `index`th segment (not of the first generation), and itself.

        `before` has the trials of the generation before by member.
        """
        draw = random.Random(f"{self._seed}-{index}")
        _, member = divmod(index, self.size)
        ranked = sorted(before, key=lambda m: _rank(before[m], maximize))
        few = max(1, round(QUANTILE * len(ranked)))
        own = before[member]
        if member not in ranked[-few:] and own.state != "failed":
            return dict(own.params), self.segment(index, own.number)
        donor = before[draw.choice(ranked[:few])]
        return self._vary(donor.params, draw), self.segment(index, donor.number)

    def _vary(self, params: Mapping[str, Any], draw: random.Random) -> dict[str, Any]:
        varied = dict(params)
        for name, given in self._varied.items():
            if name not in params:
                continue
            if draw.random() < RESAMPLED:
                varied[name] = from_unit(given, draw.random())
            else:
                varied[name] = _inside(given, params[name] * draw.choice(FACTORS))
        return varied


def forget(place: Store, keep: Sequence[int]) -> None:
    """Remove the checkpoints in `place` of all trials but those to `keep`."""
    for name in place.folders():
        if name.isdigit() and int(name) not in keep:
            place.remove(name)


def _rank(record: TrialRecord, maximize: bool) -> tuple[float, int]:
    """Best first; the failed last."""
    if record.state == "failed" or record.value is None:
        return math.inf, record.number
    return (-record.value if maximize else record.value), record.number


def _inside(given: BaseDistribution, value: float) -> float:
    if given.step is not None:
        value = given.low + round((value - given.low) / given.step) * given.step
    return float(min(max(value, given.low), given.high))
