"""Which trials are stopped early. Every decision follows from the epochs that the ledger holds, so
a search that was cut off goes on with the decisions of an unbroken one."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .spec import TuningSpec

Curve = Mapping[int, float]  # a trial's values by epoch, from 1


@dataclass(frozen=True)
class Rival:
    """What is known of a trial: its place in the order of asking, and its values by epoch."""

    index: int
    curve: Curve


class Pruner(ABC):
    """Says, after an epoch of a trial, whether it goes on. More is better where `maximize`."""

    def __init__(self, tuning: TuningSpec, maximize: bool) -> None:
        self._pick: Callable[..., float] = max if maximize else min
        self._sign = 1.0 if maximize else -1.0
        self._grace = tuning.grace_epochs
        self._factor = tuning.reduction_factor
        self._seed = tuning.seed

    @abstractmethod
    def stops(self, trial: Rival, epochs: int, others: Sequence[Rival]) -> bool:
        """Whether `trial`, of `epochs` in all, ends after the last epoch of its curve."""

    def best_by(self, curve: Curve, epoch: int) -> float:
        """The best value up to an epoch, turned so that more is better."""
        return self._sign * self._pick(v for e, v in curve.items() if e <= epoch)


class Asha(Pruner):
    """Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934).

    At each rung (`grace_epochs`, then times `reduction_factor`) a trial goes on when it is among
    the best 1/`reduction_factor` of those that came so far.
    """

    def stops(self, trial: Rival, epochs: int, others: Sequence[Rival]) -> bool:
        epoch = max(trial.curve)
        if epoch not in self.rungs(trial, epochs):
            return False
        same = [o for o in others if max(o.curve, default=0) >= epoch and self.comparable(o, trial)]
        if not same:
            return False
        reached = [self.best_by(other.curve, epoch) for other in same]
        cutoff = np.percentile(reached, (1 - 1 / self._factor) * 100)
        return bool(self.best_by(trial.curve, epoch) < cutoff)

    def first_rung(self, trial: Rival, epochs: int) -> int:
        return min(self._grace, epochs)

    def comparable(self, other: Rival, trial: Rival) -> bool:
        return True

    def rungs(self, trial: Rival, epochs: int) -> list[int]:
        """The epochs, before the last, after which a trial is compared."""
        rung, found = float(self.first_rung(trial, epochs)), list[int]()
        while int(rung) < epochs:
            found.append(int(rung))
            rung *= self._factor
        return found


class Hyperband(Asha):
    """Hyperband (Li et al. 2018, arXiv:1603.06560) without waiting: brackets of successive
    halving with longer and longer first rungs, for metrics whose early values say little.

    A trial's bracket is drawn from the seed and its place in the order of asking, in Hyperband's
    proportions; it is compared within its bracket only.
    """

    def __init__(self, tuning: TuningSpec, maximize: bool, epochs: int) -> None:
        super().__init__(tuning, maximize)
        self._firsts = []
        rung = float(min(self._grace, epochs))
        while int(rung) < epochs:
            self._firsts.append(int(rung))
            rung *= self._factor
        self._firsts = self._firsts or [epochs]

    def bracket(self, index: int) -> int:
        """0 for the bracket with the shortest first rung."""
        last = len(self._firsts)
        weights = [self._factor ** (last - 1 - b) * last / (last - b) for b in range(last)]
        draw = random.Random(f"{self._seed}-{index}")
        return draw.choices(range(last), weights)[0]

    def first_rung(self, trial: Rival, epochs: int) -> int:
        return min(self._firsts[self.bracket(trial.index)], epochs)

    def comparable(self, other: Rival, trial: Rival) -> bool:
        return self.bracket(other.index) == self.bracket(trial.index)


class Median(Pruner):
    """The median stopping rule (Golovin et al. 2017, Vizier): from `grace_epochs` on, a trial
    whose best value is worse than the median of the others' best by then is stopped."""

    FEWEST = 3

    def stops(self, trial: Rival, epochs: int, others: Sequence[Rival]) -> bool:
        epoch = max(trial.curve)
        if epoch < self._grace or epoch >= epochs:
            return False
        reached = [self.best_by(o.curve, epoch) for o in others if max(o.curve, default=0) >= epoch]
        if len(reached) < self.FEWEST:
            return False
        return bool(self.best_by(trial.curve, epoch) < np.median(reached))


def pruner_for(tuning: TuningSpec, maximize: bool, epochs: int) -> Pruner | None:
    """The pruner of `tuning.scheduler`; None: every trial runs to its end."""
    match tuning.pruning:
        case "asha":
            return Asha(tuning, maximize)
        case "hyperband":
            return Hyperband(tuning, maximize, epochs)
        case "median":
            return Median(tuning, maximize)
    return None
