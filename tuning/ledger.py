"""The book of a search: an Optuna study in a storage that outlives any crash."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from .objectives import Objectives
from .population import Population
from .pruning import Rival
from .records import State, TrialRecord
from .samplers import grid, sampler_for
from .space import complete, draw
from .spec import TuningSpec
from .study import open_study, quiet
from .walk import Space

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
_GOES_ALONG = ("origin", "segment")  # with a trial that is run again


class Ledger:
    """Asks for parameters, takes down epochs and ends, and knows what is left to do.

    A trial counts when it ran to its own end: complete, pruned, or failed for good. One that was
    cut off from outside (the driver was killed, the budget ended before its first epoch) does
    not: it is closed as FAIL, and its parameters are the next to be asked. Nor does one that came
    from an earlier study (`warm`).

    What is drawn depends on the seed, the number of counted trials and their results only, so a
    search that was cut off and resumed one trial at a time draws what an unbroken one draws.
    """

    def __init__(
        self, storage: BaseStorage, name: str, objectives: Objectives, tuning: TuningSpec,
        space: Space, points: Sequence[tuple[Mapping[str, Any], str]] = (),
        sampler: BaseSampler | None = None, population: Population | None = None,
    ) -> None:
        """`points` are tried first, each with its origin; `sampler` is the user's own."""
        self._storage = storage
        self.objectives = objectives
        self.study = open_study(storage, name, objectives.maximize)
        self._pick = max if objectives.maximize[0] else min
        self._tuning = tuning
        self._space = space
        self._own_sampler = sampler
        self._population = population
        self._grid = grid(space, tuning.seed) if tuning.sampler == "grid" else None
        self._live: dict[int, optuna.Trial] = {}
        self._metrics: dict[int, dict[str, float]] = {}  # of the best epoch, of what runs
        self._requeue_cut_off()
        self._before = self._forgotten = frozenset[int]()
        past = self._counted()
        if past and all(trial.state is TrialState.FAIL for trial in past):
            # The cause may be cured (the user's own code, a full disk): they are run again.
            self._forgotten = frozenset(trial.number for trial in past)
        self._before = frozenset(trial.number for trial in self._counted())
        self.fresh = not self._before and not self._waiting()
        if self.fresh:
            for params, origin in points:
                self.study.enqueue_trial(dict(params), user_attrs={"origin": origin})
        self._known = {_key(trial.params): trial for trial in self._results() if _whole(trial)}

    @property
    def resumed(self) -> int:
        """The counted trials found when the book was opened."""
        return len(self._before)

    @property
    def total(self) -> int:
        """How many trials the search has: `tuning.trials`, or the points of a smaller grid."""
        trials = self._tuning.trials
        return trials if self._grid is None else min(trials, len(self._grid))

    @property
    def remaining(self) -> int:
        """How many trials are still to be asked."""
        return max(0, self.total - len(self._counted()) - len(self._live))

    @property
    def live(self) -> list[int]:
        return list(self._live)

    @property
    def spent(self) -> dict[str, float]:
        """Seconds that all calls so far have searched, and that their trials held CPUs and GPUs."""
        return dict(self.study.user_attrs.get("spent", {}))

    def spend(self, total: Mapping[str, float]) -> None:
        self.study.set_user_attr("spent", {name: round(used, 3) for name, used in total.items()})

    def ready(self) -> bool:
        """Whether a trial can be asked for: a generation waits for the one before."""
        return self._population is None or self._plan(self._population)

    def ask(self) -> tuple[int, dict[str, Any]]:
        """A new trial's number and drawn parameters."""
        index = self._index()
        self.study.sampler = self._own_sampler or sampler_for(self._tuning, self._space, index)
        if self._grid is not None and not self._waiting():
            self.study.enqueue_trial(self._next_of_grid())
        with quiet():
            trial = self.study.ask()
            trial.set_user_attr("index", index)
            if self._population is not None and "segment" not in trial.user_attrs:
                trial.set_user_attr("segment", asdict(self._population.segment(index)))
            self._live[trial.number] = trial
            _ = trial.relative_params  # makes the sampler count a trial that is queued as its own
            return trial.number, draw(self._space, partial(_suggest, trial))

    def _index(self) -> int:
        """The place of the next trial in the order of asking."""
        return len(self._counted()) + len(self._live)

    def _plan(self, population: Population) -> bool:
        """Queue what a member of a later generation does; False: the one before still runs."""
        index = self._index()
        if index < population.size or self._waiting():
            return True
        generation = index // population.size - 1
        before = {
            segment["member"]: self._record(trial) for trial in self._counted()
            if (segment := trial.user_attrs.get("segment", {})).get("generation") == generation}
        if len(before) < population.size:
            return False
        params, segment = population.next(index, before, self.objectives.maximize[0])
        self.study.enqueue_trial(params, user_attrs={
            "segment": asdict(segment), "origin": f"goes on from trial {segment.donor}"})
        return True

    def segment(self, number: int) -> dict[str, Any]:
        """The share of the epochs that a trial of a population trains; empty: all of them."""
        return dict(self._frozen(number).user_attrs.get("segment", {}))

    def donors(self) -> list[int]:
        """The trials of a population whose checkpoints may still be needed."""
        segments = {t.number: s for t in (*self._counted(), *map(self._frozen, self._live))
                    if (s := t.user_attrs.get("segment"))}
        last = max((segment["generation"] for segment in segments.values()), default=0)
        best = self.winner()
        needed = [number for number, segment in segments.items()
                  if segment["generation"] >= last - 1 or (best and best.number == number)]
        return [*needed, *self.cut_short()]

    def again(self, number: int) -> list[int]:
        """The cut-off trials that a trial runs again, the last first."""
        found: list[int] = []
        trials = self.study.get_trials(deepcopy=False)
        while (before := trials[number].user_attrs.get("again_of")) is not None:
            number = int(before)
            found.append(number)
        return found

    def cut_short(self) -> set[int]:
        """The cut-off trials whose checkpoints those that wait or run go on from."""
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        off = [trial.number for trial in self._cut_off()]
        numbers = [*off, *(trial.number for trial in waiting), *self._live]
        return {*off, *(before for number in numbers for before in self.again(number))}

    def repeat(self, number: int) -> TrialRecord | None:
        """Close a trial with the result that its parameters had before; None: they are new."""
        trial = self._live[number]
        twin = self._known.get(_key(self._frozen(number).params))
        if twin is None:
            return None
        for epoch, value in twin.intermediate_values.items():
            self._storage.set_trial_intermediate_value(trial._trial_id, epoch, value)
        trial.set_user_attr("repeat_of", twin.number)
        before = twin.user_attrs.get("warm")
        trial.set_user_attr("origin", f"known from {before}" if before else
                            f"known from trial {twin.number}")
        measures = dict(twin.user_attrs.get("measures", {}))
        self._close(number, _STATES[twin.state], "", measures)
        return self._record(self._frozen(number))

    def epoch(self, number: int, epoch: int, value: float,
              metrics: Mapping[str, float] | None = None) -> bool:
        """Take down an epoch's value; one that is no number, or is known already, is left out.

        Returns whether the epoch is new.
        """
        curve = self._frozen(number).intermediate_values
        new = epoch not in curve
        if new and math.isfinite(value):
            best = self._pick(curve.values(), default=None)
            trial_id = self._live[number]._trial_id
            self._storage.set_trial_intermediate_value(trial_id, epoch, value)
            if best is None or (value != best and self._pick(value, best) == value):
                self._metrics[number] = dict(metrics or {})
        return new

    def place(self, number: int, place: dict[str, Any]) -> None:
        """Take down where a trial ran; see `trial.PLACE`."""
        self._live[number].set_user_attr("place", place)

    def best(self, number: int) -> float | None:
        return self._pick(self._frozen(number).intermediate_values.values(), default=None)

    def end(self, number: int, state: State, cause: str = "",
            measures: Mapping[str, float] | None = None) -> TrialRecord:
        """Close a trial; one that never gave a number has failed, whatever `state` says."""
        value = self.best(number)
        if value is None and state != "failed":
            state, cause = "failed", cause or "no epoch gave a finite value of the metric"
        known: dict[str, float] = {}
        if value is not None:
            known = {**self._metrics.get(number, {}), **(measures or {}),
                     self.objectives.names[0]: value}
        missing = {*self.objectives.names} - known.keys()
        if state == "complete" and missing:
            state, cause = "failed", f"{', '.join(sorted(missing))} could not be measured"
        self._close(number, state, cause, known)
        return self._record(self._frozen(number))

    def cut_off(self, number: int, cause: str) -> None:
        """Close a trial that was ended from outside, so that a later call runs it again."""
        self._live[number].set_user_attr("cut_off", True)
        self._close(number, "failed", cause, {})

    def add_warm(self, trials: Sequence[FrozenTrial]) -> None:
        """Take over finished trials of an earlier study; the samplers learn from them."""
        for trial in trials:
            self.study.add_trial(trial)
            added = self.study.get_trials(deepcopy=False)[-1]
            if _whole(added):
                self._known[_key(added.params)] = added

    def records(self) -> list[TrialRecord]:
        """The counted trials, and what came from an earlier study."""
        return [self._record(trial) for trial in self._results()]

    def front(self) -> list[TrialRecord]:
        """The feasible complete trials that none other beats on every objective."""
        return self.objectives.front(self.records())

    def winner(self) -> TrialRecord | None:
        """The best feasible complete trial, by the rule when there are several objectives; without
        constraints the best pruned one when none is complete."""
        if self.objectives.several or self.objectives.limits:
            front = self.front()
            return self.objectives.choose(front) if front else None
        records = [record for record in self.records() if record.value is not None]
        complete = [record for record in records if record.state == "complete"]
        return self._pick(complete or records, key=lambda record: record.value or 0.0, default=None)

    def best_so_far(self) -> float | None:
        """The best value of the first objective; of what runs too, where no constraint could still
        forbid it."""
        free = not self.objectives.limits
        values = [r.value for r in self.records() if free or self.objectives.feasible(r)]
        values += [self.best(number) for number in self._live] if free else []
        return self._pick((v for v in values if v is not None), default=None)

    def since_best(self) -> int:
        """How many counted trials ended after the last one that was the best when it ended."""
        winner = self.winner()
        if winner is None:
            return 0
        leaders = {r.number for r in self.front()} if self.objectives.several else {winner.number}
        ended = sorted(self._counted(), key=lambda t: (t.datetime_complete, t.number))
        after = [i for i, trial in enumerate(ended) if trial.number in leaders]
        return len(ended) - 1 - max(after, default=-1)

    def rival(self, number: int) -> Rival:
        """A trial, as a pruner sees it."""
        return _rival(self._frozen(number))

    def rivals(self, number: int) -> list[Rival]:
        """All other trials that have a value, as a pruner sees them."""
        live = [self._frozen(n) for n in self._live if n != number]
        found = [t for t in self._results() if "repeat_of" not in t.user_attrs]
        return [_rival(trial) for trial in (*found, *live) if trial.intermediate_values]

    def _close(self, number: int, state: State, cause: str, measures: Mapping[str, float]) -> None:
        trial = self._live.pop(number)
        self._metrics.pop(number, None)
        if cause:
            trial.set_user_attr("cause", cause)
        if measures:
            trial.set_user_attr("measures", dict(measures))
        if state != "failed":
            self._set_constraints(trial, measures)
        if state == "complete":
            self.study.tell(trial, self.objectives.values(measures))
        else:
            ended = TrialState.PRUNED if state == "pruned" else TrialState.FAIL
            self.study.tell(trial, state=ended)
        frozen = self._frozen(number)
        if _whole(frozen):
            self._known.setdefault(_key(frozen.params), frozen)

    def _set_constraints(self, trial: optuna.Trial, measures: Mapping[str, float]) -> None:
        """A trial that was stopped early was not measured: a sampler takes it for feasible."""
        limits = self.objectives.limits
        known = measures.keys() >= {limit.name for limit in limits}
        excesses = self.objectives.excesses(measures) if known else {}
        for limit in limits:
            trial.set_constraint(limit.text, excesses.get(limit.text, 0.0))

    def _requeue_cut_off(self) -> None:
        for trial in self._cut_off():
            self._requeue(trial)  # before it is closed: a kill in between loses nothing
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._mark(trial._trial_id, cut_off=True, cause="the search was killed")
            self.study.tell(trial.number, state=TrialState.FAIL)

    def _cut_off(self) -> list[FrozenTrial]:
        """The trials that were cut off, and not queued again yet."""
        trials = self.study.get_trials(deepcopy=False)
        queued = {trial.user_attrs.get("again_of") for trial in trials}
        return [trial for trial in trials if trial.number not in {*queued, *self._live}
                and (trial.state is TrialState.RUNNING or trial.user_attrs.get("cut_off"))]

    def _requeue(self, trial: FrozenTrial) -> None:
        """Queue a trial's parameters. Those of one that was killed while it was drawn are drawn
        again, but for what was stated of them."""
        params = trial.system_attrs.get("fixed_params", {}) | trial.params
        if not complete(self._space, params):
            params = trial.system_attrs.get("fixed_params", {})
        if params:
            along = {"origin": f"again: trial {trial.number} was cut off"} | {
                name: trial.user_attrs[name] for name in _GOES_ALONG if name in trial.user_attrs}
            self.study.enqueue_trial(params, user_attrs={"again_of": trial.number, **along})

    def _next_of_grid(self) -> dict[str, Any]:
        assert self._grid is not None
        taken = {_key(t.params) for t in (*self._counted(), *map(self._frozen, self._live))}
        return next(point for point in self._grid if _key(point) not in taken)

    def _mark(self, trial_id: int, **attributes: Any) -> None:
        for name, value in attributes.items():
            self._storage.set_trial_user_attr(trial_id, name, value)

    def _waiting(self) -> bool:
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _results(self) -> list[FrozenTrial]:
        finished = self.study.get_trials(deepcopy=False, states=tuple(_STATES))
        return [
            trial for trial in finished
            if not trial.user_attrs.get("cut_off") and trial.number not in self._forgotten
        ]

    def _counted(self) -> list[FrozenTrial]:
        return [trial for trial in self._results() if "warm" not in trial.user_attrs]

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        values = {int(step): float(value) for step, value in trial.intermediate_values.items()}
        failed = trial.state is TrialState.FAIL
        return TrialRecord(
            number=trial.number,
            state=_STATES[trial.state],
            value=None if failed else self._pick(values.values(), default=None),
            params=dict(trial.params),
            values=values,
            seconds=trial.duration.total_seconds() if trial.duration else 0.0,
            cause=str(trial.user_attrs.get("cause", "")),
            place=dict(trial.user_attrs.get("place", {})),
            measures=dict(trial.user_attrs.get("measures", {})),
            origin=str(trial.user_attrs.get("origin", "")),
        )


def _key(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)


def _whole(trial: FrozenTrial) -> bool:
    """Whether a trial's result is what its parameters give, not what a budget left of it."""
    return (trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
            and "cause" not in trial.user_attrs and "segment" not in trial.user_attrs)


def _rival(trial: FrozenTrial) -> Rival:
    curve = {int(step): value for step, value in trial.intermediate_values.items()}
    return Rival(int(trial.user_attrs.get("index", trial.number)), curve)


def _suggest(trial: optuna.Trial, name: str, given: BaseDistribution) -> Any:
    if isinstance(given, CategoricalDistribution):
        return trial.suggest_categorical(name, given.choices)
    if isinstance(given, IntDistribution):
        return trial.suggest_int(name, given.low, given.high, step=given.step, log=given.log)
    assert isinstance(given, FloatDistribution)
    return trial.suggest_float(name, given.low, given.high, step=given.step, log=given.log)


def study_name(**parts: Any) -> str:
    """The name under which a search of the same parts finds its study again."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return f"search-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
