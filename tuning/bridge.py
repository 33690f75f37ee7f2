"""Between Ray Tune and the ledger: Tune asks and tells, the ledger remembers."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher

from raymill.errors import RaymillError, TrainingError, UsageError
from raymill.events import Event, Notify, note, warn
from raymill.training.job import TrainJob

from .budget import Budget
from .hangs import Hangs
from .ledger import Ledger
from .own import Callback
from .pruning import Pruner
from .records import State, TrialRecord
from .space import decode
from .trial import EPOCH, FAILED, FINISHED, MEASURES, METRICS, OBJECTIVE, PLACE
from .walk import Space

LOOK_S = 2.0  # how often the machines are counted again
MakeJob = Callable[[dict[str, Any]], TrainJob]


class _NotInSnapshots:
    """Tune pickles its set-up into a file that nothing here reads: the ledger, with its open
    files, and the listener stay out of it."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


@dataclass
class Teller:
    """Closes trials in the ledger, and tells everybody.

    `broke` is what a callback raised: it ends the search, and whoever runs it raises it again.
    """

    ledger: Ledger
    budget: Budget
    space: Space
    notify: Notify
    callbacks: list[Callback] = field(default_factory=list)
    broke: Exception | None = None

    def running(self, number: int, drawn: dict[str, Any], again: Sequence[int]) -> None:
        """A trial begins, or goes on for the cut-off ones that it runs `again`, the last first."""
        cause = f"goes on with trial {again[0]}, which was cut off" if again else ""
        tell_trial(self.notify, number, "running", decode(self.space, drawn), cause=cause)
        if cause:
            note(self.notify, f"trial {number} {cause}")

    def end(self, number: int, state: State, cause: str = "",
            measures: Mapping[str, float] | None = None) -> None:
        self.ended(self.ledger.end(number, state, cause, measures))

    def ended(self, record: TrialRecord) -> None:
        record = replace(record, params=decode(self.space, record.params))
        tell_trial(self.notify, record.number, record.state, record.params, value=record.value,
                   epoch=max(record.values, default=0), cause=record.cause or record.origin)
        self.budget.news()
        self._call(record.number)

    def _call(self, number: int) -> None:
        study = self.ledger.study
        try:  # Tune would take what is raised here for a fault of the trial
            for callback in self.callbacks if self.broke is None else ():
                callback(study, study.get_trials()[number])
        except Exception as error:  # noqa: BLE001 - the user's own code
            self.broke = error
        if study.stopped or self.broke is not None:
            self.budget.stop("a callback")


class LedgerSearcher(_NotInSnapshots, Searcher):  # type: ignore[misc]
    """Suggests what the ledger draws. Its state is the ledger's, so Tune has none to save."""

    def __init__(self, ledger: Ledger, make_job: MakeJob, teller: Teller) -> None:
        super().__init__()
        self._ledger = ledger
        self._make_job = make_job
        self._teller = teller

    def suggest(self, trial_id: str) -> Any:
        """The next trial that has to be run; one whose result is known is closed with it."""
        while self._ledger.remaining and not self._teller.budget.ended_by:
            if not self._ledger.ready():
                return None  # Tune asks again
            number, drawn = self._ledger.ask()
            if (known := self._ledger.repeat(number)) is not None:
                self._teller.ended(known)
                continue
            try:
                job = self._make_job(drawn)
            except (ValidationError, RaymillError) as error:  # values that don't go together
                self._teller.end(number, "failed", " ".join(str(error).split()))
                continue
            again = self._ledger.again(number)
            self._teller.running(number, drawn, again)
            segment = self._ledger.segment(number)
            return {"number": number, "again": again, "job": json.dumps(job.to_dict()),
                    "epochs": segment.get("until", job.training.epochs), **segment}
        return Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Left to `Watch`, which also sees the cause of an error."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the state."""


class Room(_NotInSnapshots, ConcurrencyLimiter):  # type: ignore[misc]
    """As many trials at once as the machines hold that are there now: some may have been lost, or
    added, since the search began."""

    def __init__(self, searcher: Searcher, trials: int, count: Callable[[], int]) -> None:
        super().__init__(searcher, max_concurrent=trials)
        self._count, self._looked = count, time.monotonic()

    def suggest(self, trial_id: str) -> Any:
        """The searcher's, or None while the machines are full."""
        if time.monotonic() - self._looked >= LOOK_S:
            with suppress(UsageError):  # not even one has room now: what runs goes on, or waits
                self.max_concurrent = self._count()
            self._looked = time.monotonic()
        return super().suggest(trial_id)


class Watch(_NotInSnapshots, tune.Callback):  # type: ignore[misc]
    """Takes down what Tune sees, and tells it on."""

    def __init__(
        self, metric: str, teller: Teller, sweep: Callable[[], None], hangs: Hangs
    ) -> None:
        self._metric = metric
        self._sweep = sweep
        self._hangs = hangs
        self._teller = teller
        self._notify = teller.notify

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called some times a second."""
        self._teller.budget.tick()
        self._hangs.look(self._teller.ledger.live)
        self._sweep()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if EPOCH not in result:
            return
        number, epoch, metrics = trial.config["number"], result[EPOCH], result[METRICS]
        known = {name.removeprefix("val_"): value for name, value in metrics.items()
                 if name.startswith("val_")}
        if not self._teller.ledger.epoch(number, epoch, known[self._metric], known):
            return  # a second try tells the last epoch of the first one again
        self._teller.budget.news()
        self._notify(Event("epoch", {
            "trial": number, "epoch": epoch, "epochs": trial.config["epochs"], "metrics": metrics,
            "rows_per_s": metrics.get("rows_per_s"),
        }))

    def on_trial_complete(
        self, iteration: int, trials: list[Any], trial: Any, **info: Any
    ) -> None:
        result = trial.last_result
        state: State = "pruned"
        if FAILED in result:
            state = "failed"
        elif FINISHED in result or result.get(EPOCH, 0) >= trial.config["epochs"]:
            state = "complete"
        self._end(trial, state, str(result.get(FAILED, "")))

    def on_trial_recover(
        self, iteration: int, trials: list[Any], trial: Any, **info: Any
    ) -> None:
        number = trial.config["number"]
        warn(self._notify, f"trial {number} failed and is tried again: {self._cause(trial)}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, "failed", self._cause(trial))

    def _cause(self, trial: Any) -> str:
        return self._hangs.why(trial.config["number"]) or cause_of(trial)

    def _end(self, trial: Any, state: State, cause: str) -> None:
        number, result = trial.config["number"], trial.last_result or {}
        if place := result.get(PLACE):
            place = {**place, "ended": time.time()}
            self._teller.ledger.place(number, place)
            self._notify(Event("place", {"trial": number, **place}))
        self._teller.end(number, state, cause, result.get(MEASURES))


class Ends(_NotInSnapshots, tune.Stopper):  # type: ignore[misc]
    """Ends the search when a budget is used up."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return bool(self._budget.ended_by)


class LedgerScheduler(_NotInSnapshots, FIFOScheduler):  # type: ignore[misc]
    """Stops the trials that a pruner gives up, by what the ledger holds of them all."""

    def __init__(self, ledger: Ledger, pruner: Pruner) -> None:
        super().__init__()
        self._ledger = ledger
        self._pruner = pruner

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        value = result.get(OBJECTIVE, math.nan)
        if EPOCH not in result or not math.isfinite(value):
            return str(TrialScheduler.CONTINUE)
        number, epoch = trial.config["number"], result[EPOCH]
        known = self._ledger.rival(number)
        if epoch in known.curve:  # told again by a second try
            return str(TrialScheduler.CONTINUE)
        rival = replace(known, curve={**known.curve, epoch: value})
        stops = self._pruner.stops(rival, trial.config["epochs"], self._ledger.rivals(number))
        return str(TrialScheduler.STOP if stops else TrialScheduler.CONTINUE)


def tell_trial(notify: Notify, number: int, state: str, params: dict[str, Any], *,
               value: float | None = None, epoch: int = 0, cause: str = "") -> None:
    notify(Event("trial", {"number": number, "state": state, "value": value, "params": params,
                           "epoch": epoch, "cause": cause}))


def cause_of(trial: Any) -> str:
    """Why Tune's trial failed last, in a line.

    Read from the text that Tune keeps: the error itself may be of a class that only the trial's
    process can import.
    """
    if trial.error_file is None or not Path(trial.error_file).exists():
        return "unknown"
    last = Path(trial.error_file).read_text(errors="replace").rpartition("Failure # ")[2]
    if "OutOfMemoryError" in last:
        return "out of memory: lower training.batch_size, or tuning.concurrency"
    if "actor died" in last.lower() or "actor is dead" in last.lower():
        return "its process died (killed, or out of memory)"
    text = last.strip().splitlines()[-1].strip()
    return text.removeprefix(f"{TrainingError.__module__}.{TrainingError.__name__}: ")[:800]
