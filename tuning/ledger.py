"""The book of a search: an Optuna study in a journal file that outlives any crash."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from raymill.errors import UsageError

from .fields import Space
from .records import State, TrialRecord
from .space import draw
from .spec import TuningSpec

JOURNAL = "study.journal"
_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@contextmanager
def journal(out: Path) -> Iterator[Path]:
    """The journal file in `out`, held by this process alone and mended after a crash.

    A process killed while it wrote leaves Optuna's lock behind and may leave half a line, to
    which the next write would be glued. The lock taken here dies with its process.

    Raises:
        UsageError: another process is searching in `out`.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / JOURNAL
    with (out / "search.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another process is searching in {out}", cure="Wait for it, or stop it."
            ) from None
        path.with_name(f"{JOURNAL}.lock").unlink(missing_ok=True)
        if path.exists():
            written = path.read_bytes()
            os.truncate(path, written.rfind(b"\n") + 1)
        yield path


class Ledger:
    """Asks for parameters, takes down epochs and ends, and knows what is left to do.

    A trial counts when it ran to its own end: complete, pruned, or failed for good. One that was
    cut off from outside (the driver was killed, the budget ended before its first epoch) does
    not: it is closed as FAIL, and its parameters are the next to be asked.

    What is drawn depends on the seed, the number of counted trials and their results only, so a
    search that was cut off and resumed one trial at a time draws what an unbroken one draws.
    """

    def __init__(
        self, path: Path, name: str, maximize: bool, tuning: TuningSpec,
        space: Space, first: Sequence[Mapping[str, Any]],
    ) -> None:
        self._storage = JournalStorage(JournalFileBackend(str(path)))
        self.study = _open_study(self._storage, name, maximize)
        self._pick = max if maximize else min
        self._tuning = tuning
        self._space = space
        self._live: dict[int, optuna.Trial] = {}
        self._requeue_cut_off()
        self._before = self._forgotten = frozenset[int]()
        past = self._counted()
        if past and all(trial.state is TrialState.FAIL for trial in past):
            # The cause may be cured (the user's own code, a full disk): they are run again.
            self._forgotten = frozenset(trial.number for trial in past)
        self._before = frozenset(trial.number for trial in self._counted())
        if not self._before and not self._waiting():
            for values in filter(None, first):
                self.study.enqueue_trial(dict(values), user_attrs={"origin": "own values"})

    @property
    def resumed(self) -> int:
        """The counted trials found when the book was opened."""
        return len(self._before)

    @property
    def remaining(self) -> int:
        """How many trials are still to be asked."""
        return max(0, self._tuning.trials - len(self._counted()) - len(self._live))

    @property
    def live(self) -> list[int]:
        return list(self._live)

    @property
    def spent(self) -> float:
        """Seconds that all calls so far have searched."""
        return float(self.study.user_attrs.get("spent_s", 0.0))

    def spend(self, total: float) -> None:
        self.study.set_user_attr("spent_s", round(total, 3))

    def ask(self) -> tuple[int, dict[str, Any]]:
        """A new trial's number and drawn parameters."""
        self.study.sampler = self._sampler(len(self._counted()) + len(self._live))
        trial = self.study.ask()
        self._live[trial.number] = trial
        return trial.number, draw(self._space, partial(_suggest, trial))

    def epoch(self, number: int, epoch: int, value: float) -> bool:
        """Take down an epoch's value; one that is no number, or is known already, is left out.

        Returns whether the epoch is new.
        """
        new = epoch not in self._frozen(number).intermediate_values
        if new and math.isfinite(value):
            self._live[number].report(value, epoch)
        return new

    def place(self, number: int, place: dict[str, Any]) -> None:
        """Take down where a trial ran; see `trial.PLACE`."""
        self._live[number].set_user_attr("place", place)

    def best(self, number: int) -> float | None:
        return self._pick(self._frozen(number).intermediate_values.values(), default=None)

    def end(self, number: int, state: State, cause: str = "") -> TrialRecord:
        """Close a trial; one that never gave a number has failed, whatever `state` says."""
        value = self.best(number)
        if value is None and state != "failed":
            state, cause = "failed", cause or "no epoch gave a finite value of the metric"
        self._close(number, state, cause)
        return self._record(self._frozen(number))

    def cut_off(self, number: int, cause: str) -> None:
        """Close a trial that was ended from outside, so that a later call runs it again."""
        self._live[number].set_user_attr("cut_off", True)
        self._close(number, "failed", cause)

    def records(self) -> list[TrialRecord]:
        return [self._record(trial) for trial in self._counted()]

    def winner(self) -> TrialRecord | None:
        """The best complete trial; the best pruned one when none is complete."""
        records = [record for record in self.records() if record.value is not None]
        complete = [record for record in records if record.state == "complete"]
        return self._pick(complete or records, key=lambda record: record.value or 0.0, default=None)

    def _close(self, number: int, state: State, cause: str) -> None:
        trial = self._live.pop(number)
        if cause:
            trial.set_user_attr("cause", cause)
        if state == "complete":
            self.study.tell(trial, self.best(number))
        else:
            ended = TrialState.PRUNED if state == "pruned" else TrialState.FAIL
            self.study.tell(trial, state=ended)

    def _requeue_cut_off(self) -> None:
        trials = self.study.get_trials(deepcopy=False)
        again = {trial.user_attrs.get("again_of") for trial in trials}
        for trial in trials:
            zombie = trial.state is TrialState.RUNNING
            cut_off = zombie or trial.user_attrs.get("cut_off")
            params = trial.system_attrs.get("fixed_params", {}) | trial.params
            if cut_off and params and trial.number not in again:
                # Queued before it is closed: a kill in between loses nothing.
                self.study.enqueue_trial(params, user_attrs={"again_of": trial.number})
            if zombie:
                self._mark(trial._trial_id, cut_off=True, cause="the search was killed")
                self.study.tell(trial.number, state=TrialState.FAIL)

    def _mark(self, trial_id: int, **attributes: Any) -> None:
        for name, value in attributes.items():
            self._storage.set_trial_user_attr(trial_id, name, value)

    def _waiting(self) -> bool:
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _counted(self) -> list[FrozenTrial]:
        finished = self.study.get_trials(deepcopy=False, states=tuple(_STATES))
        return [
            trial for trial in finished
            if not trial.user_attrs.get("cut_off") and trial.number not in self._forgotten
        ]

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _sampler(self, index: int) -> BaseSampler:
        seed = (self._tuning.seed * 1_000_003 + index) % 2**32
        if self._tuning.sampler == "random":
            return RandomSampler(seed=seed)
        # A short search would otherwise be all random start.
        startup = max(4, min(10, self._tuning.trials // 4))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=startup)

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
        )


def _suggest(trial: optuna.Trial, name: str, given: BaseDistribution) -> Any:
    if isinstance(given, CategoricalDistribution):
        return trial.suggest_categorical(name, given.choices)
    if isinstance(given, IntDistribution):
        return trial.suggest_int(name, given.low, given.high, step=given.step, log=given.log)
    assert isinstance(given, FloatDistribution)
    return trial.suggest_float(name, given.low, given.high, step=given.step, log=given.log)


def _open_study(storage: JournalStorage, name: str, maximize: bool) -> optuna.Study:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(
            storage=storage, study_name=name, load_if_exists=True,
            direction="maximize" if maximize else "minimize",
        )
    finally:
        optuna.logging.set_verbosity(verbosity)


def study_name(**parts: Any) -> str:
    """The name under which a search of the same parts finds its study again."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return f"search-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
