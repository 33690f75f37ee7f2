"""Runs the trials that are left on Ray Tune, until the last or until a budget is used up."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.air._internal import usage
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from raymill.events import Notify, note
from raymill.stores import Store
from raymill.training.spec import TrainingSpec

from .bridge import Ends, LedgerScheduler, LedgerSearcher, Room, Teller, Watch
from .budget import Budget
from .capacity import Plan, plan
from .inherited import inherited
from .kept import Kept
from .launch import launched
from .ledger import Ledger
from .measures import meter
from .orphans import free_orphans
from .own import Own
from .places import FOLDER, Places
from .population import forget
from .pruning import pruner_for
from .spec import TuningSpec
from .trial import OBJECTIVE, Trainable

if TYPE_CHECKING:
    from raymill.data.prepare import Prepared

    from .search import What

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # the ledger is what a search resumes from
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}
_SWEEP_EVERY_S = 0.5  # how long a stopped trial's workers hold their resources, about


def run_trials(ledger: Ledger, what: What, tuning: TuningSpec, prepared: Prepared, out: Path,
               notify: Notify, own: Own, began: float, store: Store | None = None) -> str:
    """Run what is left of a search; what ended it.

    Raises:
        KeyboardInterrupt: Ctrl-C; what ran is run again by the next call.
        Exception: what a callback raised; likewise.
    """
    base = what.base
    room = _room(tuning, base.training)
    budget = Budget(tuning.budget, ledger, room.cpu * room.workers, room.gpu * room.workers, began)
    if budget.ended_by:
        return budget.ended_by
    note(notify, room.arithmetic)
    trials = Places(out.absolute() / FOLDER, store and store / FOLDER)
    generations = tuning.pruning == "pbt" and own.scheduler is None
    kept = None if generations else _kept(ledger, tuning, trials)
    if kept is not None:
        notify = kept.listening(notify)
    teller = Teller(ledger, budget, what.space, notify, [*own.callbacks])
    if generations:  # a later generation needs them, also after a kill
        forget(trials.kept, ledger.donors())  # what another study left
        teller.callbacks.append(lambda *_: forget(trials.kept, ledger.donors()))
    with _scratch(out) as folder, launched(
        room, prepared, trials, notify, meter(prepared, ledger.objectives.measured), base.training,
    ) as (run, hangs), _quiet(), inherited():
        watch = Watch(what.base.metric, teller, _sweeper(room), hangs)
        tuner = _tuner(run, ledger, what, tuning, room, teller, own, folder, watch)
        try:
            tuner.fit()
        finally:
            budget.tick()
            budget.write()
            _settle(teller)
    if kept is not None:
        kept.sweep(ledger.cut_short())
    if teller.broke is not None:
        raise teller.broke
    if ledger.remaining and not budget.ended_by:
        raise KeyboardInterrupt
    return budget.ended_by or "tuning.trials"


def _room(tuning: TuningSpec, training: TrainingSpec) -> Plan:
    """The plan on the machines that are there now."""
    return plan(tuning, training, [n["Resources"] for n in ray.nodes() if n["Alive"]])


def _kept(ledger: Ledger, tuning: TuningSpec, trials: Places) -> Kept:
    """What is kept of the checkpoints of trials that have ended: where something is made of them,
    those of all where the winner need not have the best value, as of several objectives or under
    constraints."""
    by_value = not ledger.objectives.several and not tuning.limits
    most = tuning.kept if by_value or not tuning.kept else tuning.trials
    kept = Kept(trials.kept, most, ledger.objectives.maximize[0])
    kept.begin(((record.number, record.value if record.state == "complete" else None)
                for record in ledger.records()), ledger.cut_short())
    return kept


def _tuner(run: Trainable, ledger: Ledger, what: What, tuning: TuningSpec, room: Plan,
           teller: Teller, own: Own, folder: Path, watch: Watch) -> tune.Tuner:
    return tune.Tuner(
        tune.with_resources(run, room.driver),
        tune_config=tune.TuneConfig(
            search_alg=Room(LedgerSearcher(ledger, what.job, teller), room.trials,
                            lambda: _room(tuning, what.base.training).trials),
            scheduler=_scheduler(ledger, what, tuning, own),
            num_samples=ledger.remaining,
            reuse_actors=room.workers == 1,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="search", storage_path=str(folder), verbose=0, stop=Ends(teller.budget),
            failure_config=tune.FailureConfig(max_failures=tuning.max_failures),
            callbacks=[watch],
        ),
    )


def _scheduler(ledger: Ledger, what: What, tuning: TuningSpec, own: Own) -> TrialScheduler:
    maximize = ledger.objectives.maximize[0]
    if own.scheduler is not None:
        own.scheduler.set_search_properties(OBJECTIVE, "max" if maximize else "min")
        return own.scheduler
    pruner = pruner_for(tuning, maximize, what.base.training.epochs)
    return FIFOScheduler() if pruner is None else LedgerScheduler(ledger, pruner)


def _sweeper(room: Plan) -> Any:
    """Frees now and then what stopped trials of several workers leave behind."""
    swept = 0.0

    def sweep() -> None:
        nonlocal swept
        if room.workers > 1 and time.monotonic() - swept >= _SWEEP_EVERY_S:
            swept = time.monotonic()
            free_orphans()

    return sweep


def _settle(teller: Teller) -> None:
    """Close the trials that were running when Tune stopped: a budget was used up, a callback
    raised, or Ctrl-C."""
    ledger, why = teller.ledger, teller.budget.ended_by if teller.broke is None else ""
    for number in ledger.live:
        if why and ledger.best(number) is not None and not ledger.objectives.several:
            teller.end(number, "complete", f"cut short by {why}")
        else:
            ledger.cut_off(number, f"ended by {why}" if why else "interrupted")


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
    """Tune without its printing, its loggers, its snapshots and its telemetry."""
    before = {name: os.environ.get(name) for name in QUIET}
    logger = logging.getLogger("ray.tune")
    level, tag_callbacks = logger.level, usage.tag_callbacks
    os.environ.update(QUIET)
    logger.setLevel(logging.CRITICAL)
    usage.tag_callbacks = lambda callbacks: False  # it imports MLflow to count its callback
    try:
        yield
    finally:
        usage.tag_callbacks = tag_callbacks
        logger.setLevel(level)
        for name, value in before.items():
            restore = partial(os.environ.pop, name, None) if value is None else partial(
                os.environ.__setitem__, name, value)
            restore()
