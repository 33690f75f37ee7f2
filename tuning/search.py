"""The search: trials side by side until they are all done or the time is up."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from raymill.data.schema import InputSchema
from raymill.errors import TrainingError, UsageError
from raymill.events import Notify, ignore, note
from raymill.specs import seconds
from raymill.training.auto import AUTO, candidates, without_choice
from raymill.training.job import TrainJob, make_job
from raymill.training.spec import ModelSpec, TrainingSpec

from .bridge import LedgerSearcher, Watch, scheduler, tell_record
from .capacity import plan
from .fields import EXECUTION, FAMILY
from .launch import launched
from .ledger import Ledger, journal, study_name
from .orphans import free_orphans
from .records import SearchResult
from .space import decode, own_values, space_for, stated_fields, with_params
from .spec import Dimension, TuningSpec

if TYPE_CHECKING:
    from raymill.data.prepare import Prepared

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # the ledger is what a search resumes from
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}
_SPEND_EVERY_S = 5.0  # what a kill makes the budget forget
_SWEEP_EVERY_S = 0.5  # how long a stopped trial's workers hold their resources, about


def search(
    model: ModelSpec,
    training: TrainingSpec,
    metric: str | None,
    tuning: TuningSpec,
    prepared: Prepared,
    out: Path,
    notify: Notify = ignore,
    project: str | None = None,
) -> SearchResult:
    """Search `tuning.trials` trials in all; the same call again goes on where `out` was left.

    Needs Ray to be running, unless `out` already holds every trial. The first trial takes the
    spec's own values, where they lie in the space. What the spec states (a parameter beside
    `model.family`, a field set in `training`) is left out of a default space.

    Raises:
        TrainingError: every trial failed, or the budget ended before any finished an epoch.
        UsageError: no trial fits the cluster, another process searches in `out`, or there is
            nothing to search.
    """
    if tuning.trials == 0:
        raise UsageError("a search needs at least one trial", cure="Set tuning.trials.")
    started = time.monotonic()
    schema = prepared.transform.schema
    families = _families(model, training, tuning, schema)
    base = make_job(model.model_copy(update={"family": families[0]}), training, metric, schema,
                    project)
    wanted = {FAMILY: Dimension(choice=families)} if len(families) > 1 else tuning.space
    space = space_for(base.family, wanted, stated_fields(model, training))
    if len(families) > 1:
        note(notify, f"model.family auto: the search chooses among {', '.join(families)}")
    workers = tuning.resources.workers
    if training.workers != workers:
        note(notify, f"each trial trains on {workers} worker{'s' if workers > 1 else ''}; "
                     f"the winner will on {training.workers}")

    def specs(drawn: dict[str, Any]) -> tuple[ModelSpec, TrainingSpec]:
        concrete = model.model_copy(update={"family": base.family})
        return with_params(concrete, training, decode(space, drawn))

    def job(drawn: dict[str, Any]) -> TrainJob:
        drawn_model, drawn_training = specs(drawn)
        made = make_job(drawn_model, drawn_training, base.metric, base.schema, project)
        if workers == 1:
            return made.with_training(workers=1)
        # Ray Tune tries a failed trial again; Ray Train below it must not as well.
        return made.with_training(workers=workers, cpus_per_worker=tuning.resources.cpu,
                                  max_failures=0)

    identity = study_name(
        job={**base.to_dict(),
             "training": training.model_dump(mode="json", exclude=set(EXECUTION))},
        data=prepared.fingerprint,
        tuning=tuning.model_dump(mode="json", exclude={
            "trials", "budget", "resources", "concurrency", "max_failures", "space"}),
        space={path: dimension.model_dump(mode="json") for path, dimension in space.items()},
    )
    with journal(out) as path:
        ledger = Ledger(path, identity, base.maximize, tuning, space,
                        [own_values(model, training, family, space) for family in families])
        if ledger.resumed:
            note(notify, f"{ledger.resumed} of {tuning.trials} trials were finished before")
        if ledger.remaining:
            _run(ledger, base, tuning, prepared, out, notify, job, started)
        winner = ledger.winner()
        if winner is None or winner.value is None:
            raise _nothing_found(ledger, tuning)
        best_model, best_training = specs(winner.params)
        return SearchResult(
            best_params=decode(space, winner.params), best_value=winner.value,
            best_trial=winner.number, metric=base.metric, maximize=base.maximize,
            trials=[replace(r, params=decode(space, r.params)) for r in ledger.records()],
            study_path=path, study_name=identity, resumed=ledger.resumed, space=space,
            model=best_model, training=best_training,
        )


def _families(
    model: ModelSpec, training: TrainingSpec, tuning: TuningSpec, schema: InputSchema
) -> list[str]:
    """The families whose own values are tried first; the search chooses among several."""
    if model.family != AUTO:
        return [model.family]
    if tuning.space:
        return [without_choice(schema, training, tuning.space.keys())]
    return list(candidates(schema, training))


def _run(ledger: Ledger, base: TrainJob, tuning: TuningSpec, prepared: Prepared, out: Path,
         notify: Notify, job: Callable[[dict[str, Any]], TrainJob], started: float) -> None:
    spent_before = ledger.spent
    wall = seconds(tuning.budget.wall) if tuning.budget.wall is not None else None

    def spent() -> float:
        return spent_before + time.monotonic() - started

    def left() -> float | None:
        return None if wall is None else wall - spent()

    written, swept = spent_before, 0.0

    def tick() -> None:
        nonlocal written, swept
        if room.workers > 1 and time.monotonic() - swept >= _SWEEP_EVERY_S:
            swept = time.monotonic()
            free_orphans()
        if spent() - written >= _SPEND_EVERY_S:
            written = spent()
            ledger.spend(written)

    if wall is not None and spent() >= wall:
        note(notify, f"the budget of {tuning.budget.wall} was used up before")
        return
    room = plan(tuning, base.training, [n["Resources"] for n in ray.nodes() if n["Alive"]])
    note(notify, room.arithmetic)
    epochs = base.training.epochs
    with _scratch(out) as folder, launched(
        room, prepared, folder / "checkpoints", notify, keep=tuning.max_failures > 0,
        require_gpu=base.training.gpu == "require",
    ) as run, _quiet():
        tuner = tune.Tuner(
            tune.with_resources(run, room.driver),
            tune_config=tune.TuneConfig(
                search_alg=LedgerSearcher(ledger, job, notify),
                scheduler=scheduler(tuning, epochs, base.maximize, ledger.records()),
                num_samples=ledger.remaining,
                max_concurrent_trials=room.trials,
                time_budget_s=max(left() or 0.0, 0.1) if wall is not None else None,
                reuse_actors=room.workers == 1,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name="search", storage_path=str(folder), verbose=0,
                failure_config=tune.FailureConfig(max_failures=tuning.max_failures),
                callbacks=[Watch(ledger, base.metric, epochs, notify, tick)],
            ),
        )
        try:
            tuner.fit()
        finally:
            ledger.spend(spent())
    _settle(ledger, notify, over=wall is not None and spent() >= wall)


def _settle(ledger: Ledger, notify: Notify, *, over: bool) -> None:
    """Close the trials that were running when Tune stopped: the time was up, or Ctrl-C."""
    for number in ledger.live:
        if over and ledger.best(number) is not None:
            tell_record(notify, ledger.end(number, "complete", "cut short by tuning.budget.wall"))
        else:
            ledger.cut_off(number, "tuning.budget.wall ended" if over else "interrupted")
    if ledger.remaining and not over:
        raise KeyboardInterrupt


def _nothing_found(ledger: Ledger, tuning: TuningSpec) -> TrainingError:
    failed = ledger.records()
    if not failed:
        return TrainingError(f"the search ended after {tuning.budget.wall}, before any trial "
                             "finished an epoch", cure="Raise tuning.budget.wall.")
    causes = dict.fromkeys(record.cause for record in failed)
    return TrainingError(f"all {len(failed)} trials failed: " + "; ".join(causes))


def _trial_name(trial: Any) -> str:
    return f"trial-{trial.config['number']}"


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A folder for Tune's own files; one that a killed search left is removed first."""
    folder = (out / "scratch").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Tune without its printing, its loggers and its snapshots."""
    before = {name: os.environ.get(name) for name in QUIET}
    logger = logging.getLogger("ray.tune")
    level = logger.level
    os.environ.update(QUIET)
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            restore = partial(os.environ.pop, name, None) if value is None else partial(
                os.environ.__setitem__, name, value)
            restore()
