"""The search: what is searched, by which study, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymill.data.schema import InputSchema
from raymill.errors import Problem, TrainingError, UsageError
from raymill.events import Event, Notify, ignore, note, warn
from raymill.specs import PlacedError
from raymill.stores import Store
from raymill.training.auto import AUTO, candidates, without_choice
from raymill.training.job import TrainJob, make_job
from raymill.training.spec import ModelSpec, TrainingSpec

from .conflicts import check_refit
from .fields import EXECUTION
from .ledger import Ledger, study_name
from .objectives import Objectives
from .own import Own
from .population import Population
from .records import SearchResult, TrialRecord
from .run import run_trials
from .samplers import limits_of
from .space import decode, encode, own_values, space_for, stated_fields
from .spec import Dimension, TuningSpec
from .storage import FILES, held, place_of
from .walk import FAMILY, Space, with_params
from .warm import take_over

if TYPE_CHECKING:
    from raymill.data.prepare import Prepared

_LEADERS = 10  # of the trials of earlier calls, that a terminal shows
_NOT_NAMED = {"trials", "budget", "resources", "concurrency", "max_failures", "space", "storage",
              "choose", "refit", "ensemble"}


def search(
    model: ModelSpec,
    training: TrainingSpec,
    metric: str | None,
    tuning: TuningSpec,
    prepared: Prepared,
    out: Path,
    notify: Notify = ignore,
    project: str | None = None,
    *,
    name: str = "",
    code: str = "",
    own: Own | None = None,
    store: Store | None = None,
) -> SearchResult:
    """Search `tuning.trials` trials in all; the same call again goes on where `out` was left.

    Needs Ray to be running, unless `out` already holds every trial. The first trial takes the
    spec's own values, where they lie in the space. What the spec states (a parameter beside
    `model.family`, a field set in `training`) is left out of a default space. `name` and `code` (a
    digest of the user's own modules) are what a later search knows this one by. What another
    machine needs to go on lies in `out`, or in `store`.

    Raises:
        TrainingError: every trial failed, none keeps to the constraints, or the budget ended before
            any finished an epoch.
        UsageError: no trial fits the cluster, another process searches in `out`, the sampler can't
            search the space, a point lies outside of it, or there is nothing to search.
    """
    if tuning.trials == 0:
        raise UsageError("a search needs at least one trial", cure="Set tuning.trials.")
    began = time.monotonic()
    own = own or Own()
    what = what_is_searched(model, training, metric, tuning, prepared, project)
    if len(what.families) > 1:
        note(notify, f"model.family auto: the search chooses among {', '.join(what.families)}")
    workers = tuning.resources.workers
    if training.workers != workers:
        note(notify, f"each trial trains on {workers} worker{'s' if workers > 1 else ''}; "
                     f"the winner will on {training.workers}")
    objectives = Objectives.of(what.base.metric, tuning)
    for line in limits_of(tuning, what.space) if own.sampler is None else ():
        note(notify, line)
    points = what.points(tuning)
    population = None
    if tuning.pruning == "pbt" and own.scheduler is None:
        population = Population(tuning, what.space, training, what.base.family)
        note(notify, population.words())
    identity = what.identity(prepared.fingerprint, own)
    context = study_name(job=what.said(), data=prepared.fingerprint, code=code)
    with held(out, tuning.storage, store) as storage:
        ledger = Ledger(storage, identity, objectives, tuning, what.space, points, own.sampler,
                        population)
        if ledger.fresh:
            note(notify, f"study {identity}: optuna-dashboard {place_of(out, tuning.storage)}")
            take_over(ledger, tuning, what, context, name, out, notify)
        if ledger.resumed:
            note(notify, f"{ledger.resumed} of {ledger.total} trials were finished before")
        ended_by = str(ledger.study.user_attrs.get("ended_by", ""))
        notify(Event("progress", {"stage": "search", "done": ledger.resumed,
                                  "total": ledger.total, "unit": "trials",
                                  "leaders": _leaders(ledger, what)}))
        if ledger.remaining:
            ended_by = run_trials(ledger, what, tuning, prepared, out, notify, own, began,
                                  store)
            ledger.study.set_user_attr("ended_by", ended_by)
        _tell_end(ledger, tuning, ended_by, notify)
        return _result(ledger, what, tuning, identity, ended_by, out)


def _leaders(ledger: Ledger, what: What) -> list[dict[str, Any]]:
    """The best of the trials that are known before any is run."""
    known = [record for record in ledger.records() if record.value is not None]
    known.sort(key=lambda r: r.value or 0.0, reverse=ledger.objectives.maximize[0])
    return [{"number": r.number, "state": r.state, "value": r.value, "epoch": max(r.values),
             "params": decode(what.space, r.params), "curve": list(r.values.values())}
            for r in known[:_LEADERS]]


@dataclass(frozen=True)
class What:
    """What is searched: the spec's own job, and how drawn values change it."""

    model: ModelSpec
    training: TrainingSpec
    base: TrainJob
    space: Space
    tuning: TuningSpec
    project: str | None
    families: tuple[str, ...]  # that the search chooses among, the base's first

    def own_values(self, family: str) -> dict[str, Any]:
        """The spec's own values of the searched fields for a family, by their names for Optuna."""
        return own_values(self.model, self.training, family, self.space)

    def points(self, tuning: TuningSpec) -> list[tuple[dict[str, Any], str]]:
        """What is tried first: the stated points, then the spec's own values.

        Raises:
            UsageError: a stated point does not lie in the space.
        """
        found = []
        for number, point in enumerate(tuning.points):
            inside = encode(self.space, point)
            if outside := sorted(point.keys() - decode(self.space, inside).keys()):
                path = outside[0]
                raise UsageError(Problem(
                    rule=f"tuning.points[{number}] must lie in the space",
                    got=f"{path}: {point[path]!r}",
                    cure=f"Leave {path} out, or widen its dimension of tuning.space."))
            found.append((inside, f"tuning.points[{number}]"))
        for family in self.families:
            if first := self.own_values(family):
                of = f" of {family}" if len(self.families) > 1 else ""
                found.append((first, f"the spec's own values{of}"))
        return found

    def specs(self, drawn: Mapping[str, Any]) -> tuple[ModelSpec, TrainingSpec]:
        concrete = self.model.model_copy(update={"family": self.base.family})
        return with_params(concrete, self.training, decode(self.space, drawn))

    def job(self, drawn: Mapping[str, Any]) -> TrainJob:
        model, training = self.specs(drawn)
        made = make_job(model, training, self.base.metric, self.base.schema, self.project)
        if self.tuning.pruning == "pbt":  # its generations decide, not a trial's own patience
            made = made.with_training(patience=None)
        held = self.tuning.resources
        if held.workers == 1:
            return made.with_training(workers=1)
        # Ray Tune tries a failed trial again; Ray Train below it must not as well.
        return made.with_training(workers=held.workers, cpus_per_worker=held.cpu, max_failures=0)

    def said(self) -> dict[str, Any]:
        """What the trials have in common, without how they run."""
        training = self.training.model_dump(mode="json", exclude=set(EXECUTION))
        return {**self.base.to_dict(), "project": None, "training": training}

    def identity(self, data: str, own: Own) -> str:
        """The name under which the same search finds its study again."""
        return study_name(
            job=self.said(), data=data, own=own.names(),
            tuning=self.tuning.model_dump(mode="json", exclude=_NOT_NAMED),
            space={path: part.model_dump(mode="json") for path, part in self.space.items()},
        )


def what_is_searched(
    model: ModelSpec, training: TrainingSpec, metric: str | None, tuning: TuningSpec,
    prepared: Prepared, project: str | None,
) -> What:
    """The space, its families and the job that is varied, of the specs and the data."""
    schema = prepared.transform.schema
    first = tuning.objectives[0].metric if tuning.objectives else metric
    families = _families(model, training, tuning, schema)
    try:
        check_refit(tuning, training, families)
    except PlacedError as error:
        raise UsageError(str(error)) from None
    base = make_job(model.model_copy(update={"family": families[0]}), training, first, schema,
                    project)
    wanted = {FAMILY: Dimension(choice=families)} if len(families) > 1 else tuning.space
    space = space_for(base.family, wanted, stated_fields(model, training))
    return What(model, training, base, space, tuning, project, tuple(families))


def _families(
    model: ModelSpec, training: TrainingSpec, tuning: TuningSpec, schema: InputSchema
) -> list[str]:
    """The families whose own values are tried first; the search chooses among several."""
    if model.family != AUTO:
        return [model.family]
    if tuning.space:
        return [without_choice(schema, training, tuning.space.keys())]
    return list(candidates(schema, training))


def _tell_end(ledger: Ledger, tuning: TuningSpec, ended_by: str, notify: Notify) -> None:
    """Say what ended the search, and what failed and why."""
    if ended_by and ended_by != "tuning.trials":
        note(notify, f"the search was ended by {ended_by}")
    causes: dict[str, list[int]] = {}
    for record in ledger.records():
        if record.state == "failed":
            causes.setdefault(record.cause, []).append(record.number)
    for cause, numbers in causes.items():
        which = f"trial {numbers[0]}" if len(numbers) == 1 else (
            f"trials {', '.join(map(str, numbers[:8]))}" + (" ..." if len(numbers) > 8 else ""))
        warn(notify, f"{which} failed: {cause}")


def _result(ledger: Ledger, what: What, tuning: TuningSpec, identity: str, ended_by: str,
            out: Path) -> SearchResult:
    winner = ledger.winner()
    if winner is None or winner.value is None:
        raise _nothing_found(ledger, tuning, ended_by)
    records = [replace(r, params=decode(what.space, r.params)) for r in ledger.records()]
    model, training = what.specs(winner.params)
    objectives = ledger.objectives
    return SearchResult(
        best_params=decode(what.space, winner.params), best_value=winner.value,
        best_trial=winner.number, metric=what.base.metric, maximize=what.base.maximize,
        trials=records, study_path=out / FILES.get(tuning.storage, ""), study_name=identity,
        ended_by=ended_by,
        objectives=list(objectives.names),
        front=[r.number for r in ledger.front()] if objectives.several else [],
        resumed=ledger.resumed, space=dict(what.space), model=model, training=training,
    )


def _nothing_found(ledger: Ledger, tuning: TuningSpec, ended_by: str) -> TrainingError:
    records = ledger.records()
    if not records:
        return TrainingError(f"the search was ended by {ended_by}, before any trial finished an "
                             "epoch", cure="Raise tuning.budget.")
    if all(record.state == "failed" for record in records):
        causes = dict.fromkeys(record.cause for record in records)
        return TrainingError(f"all {len(records)} trials failed: " + "; ".join(causes))
    return TrainingError(Problem(
        rule="a trial must keep to tuning.constraints", got=_nearest(records, ledger.objectives),
        cure="Relax them; with tuning.warm_start: previous no trial is run again."))


def _nearest(records: Sequence[TrialRecord], objectives: Objectives) -> str:
    """The trial that breaks the constraints least, in words."""
    measured = [r for r in records if r.measures.keys() >= objectives.measured]
    if not measured:
        return "no trial that was measured to its end"
    nearest = min(measured, key=lambda r: sum(
        max(0.0, excess) for excess in objectives.excesses(r.measures).values()))
    names = dict.fromkeys(limit.name for limit in objectives.limits)
    values = ", ".join(f"{name} {nearest.measures[name]:.4g}" for name in names)
    return f"{values} of trial {nearest.number}, the nearest of {len(measured)}"
