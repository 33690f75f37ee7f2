"""Which trial wins: feasible ones, the Pareto front, and the stated rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .goals import Limit, Rule, maximized
from .records import TrialRecord
from .spec import TuningSpec


@dataclass(frozen=True)
class Objectives:
    """What a search raises or lowers, the first a validation metric, and what it must keep to."""

    names: tuple[str, ...]
    limits: tuple[Limit, ...] = ()
    rule: Rule = field(default_factory=lambda: Rule("best"))

    @classmethod
    def of(cls, metric: str, tuning: TuningSpec) -> Objectives:
        names = tuple(goal.metric for goal in tuning.objectives) or (metric,)
        return cls(names, tuple(tuning.limits), tuning.rule)

    @property
    def maximize(self) -> list[bool]:
        return [maximized(name) for name in self.names]

    @property
    def several(self) -> bool:
        return len(self.names) > 1

    @property
    def measured(self) -> set[str]:
        """All that must be known of a trial that competes."""
        return {*self.names, *(limit.name for limit in self.limits)}

    def values(self, measures: Mapping[str, float]) -> list[float]:
        return [measures[name] for name in self.names]

    def excesses(self, measures: Mapping[str, float]) -> dict[str, float]:
        """How far each constraint is broken; at most 0: it holds."""
        return {limit.text: limit.excess(measures[limit.name]) for limit in self.limits}

    def costs(self, record: TrialRecord) -> list[float]:
        """The objectives' values, turned so that less is better."""
        return [-value if up else value
                for value, up in zip(self.values(record.measures), self.maximize, strict=True)]

    def feasible(self, record: TrialRecord) -> bool:
        """Whether all is known of a trial, and every constraint holds."""
        known = record.measures.keys() >= self.measured
        return known and all(excess <= 0 for excess in self.excesses(record.measures).values())

    def front(self, records: Sequence[TrialRecord]) -> list[TrialRecord]:
        """The feasible complete trials that none other beats on every objective."""
        able = [r for r in records if r.state == "complete" and self.feasible(r)]
        costs = {r.number: self.costs(r) for r in able}
        return [r for r in able
                if not any(_dominates(costs[o.number], costs[r.number]) for o in able)]

    def choose(self, front: Sequence[TrialRecord]) -> TrialRecord:
        """The winner of a Pareto front, by the rule.

        `knee` is nearest to the best of every objective, each scaled by its range over the front;
        `best` has the best value of one; `within` has, of those within the tolerance of the best
        of one, the best of the others, in their order.
        """
        costs = {r.number: self.costs(r) for r in front}
        if self.rule.kind == "knee":
            return min(front, key=lambda r: _distance(costs[r.number], list(costs.values())))
        first = self.names.index(self.rule.name) if self.rule.name else 0
        others = [i for i in range(len(self.names)) if i != first]
        able = list(front)
        if self.rule.kind == "within":
            best = min(cost[first] for cost in costs.values())
            slack = self.rule.tolerance * (abs(best) if self.rule.relative else 1.0)
            able = [r for r in front if costs[r.number][first] <= best + slack]
            order = [*others, first]
        else:
            order = [first, *others]
        return min(able, key=lambda r: ([costs[r.number][i] for i in order], r.number))


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _distance(costs: Sequence[float], all_costs: Sequence[Sequence[float]]) -> float:
    """How far a point lies from the best of each objective, in shares of the front's ranges."""
    total = 0.0
    for cost, column in zip(costs, zip(*all_costs, strict=True), strict=True):
        spread = max(column) - min(column)
        total += ((cost - min(column)) / spread) ** 2 if spread else 0.0
    return math.sqrt(total)
