"""Between Ray Tune and the ledger: Tune asks and tells, the ledger remembers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from raymill.events import Event, Notify, warn
from raymill.training.job import TrainJob

from .ledger import Ledger
from .records import State, TrialRecord
from .spec import TuningSpec
from .trial import EPOCH, FAILED, FINISHED, METRICS, OBJECTIVE, PLACE

MakeJob = Callable[[dict[str, Any]], TrainJob]


class _NotInSnapshots:
    """Tune pickles its set-up into a file that nothing here reads: the ledger, with its open
    files, and the listener stay out of it."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class LedgerSearcher(_NotInSnapshots, Searcher):  # type: ignore[misc]
    """Suggests what the ledger draws. Its state is the ledger's, so Tune has none to save."""

    def __init__(self, ledger: Ledger, make_job: MakeJob, notify: Notify) -> None:
        super().__init__()
        self._ledger = ledger
        self._make_job = make_job
        self._notify = notify

    def suggest(self, trial_id: str) -> dict[str, Any]:
        number, drawn = self._ledger.ask()
        job = self._make_job(drawn)
        tell_trial(self._notify, number, "running", drawn)
        return {"number": number, "job": json.dumps(job.to_dict())}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Left to `Watch`, which also sees the cause of an error."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the state."""


class Watch(_NotInSnapshots, tune.Callback):  # type: ignore[misc]
    """Takes down what Tune sees, and tells it on; `tick` is called some times a second."""

    def __init__(self, ledger: Ledger, metric: str, epochs: int, notify: Notify,
                 tick: Callable[[], None]) -> None:
        self._ledger = ledger
        self._tick = tick
        self._metric = metric
        self._epochs = epochs
        self._notify = notify

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._tick()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if EPOCH not in result:
            return
        number, epoch, metrics = trial.config["number"], result[EPOCH], result[METRICS]
        if not self._ledger.epoch(number, epoch, metrics[f"val_{self._metric}"]):
            return  # a second try tells the last epoch of the first one again
        self._notify(Event("epoch", {
            "trial": number, "epoch": epoch, "epochs": self._epochs, "metrics": metrics,
            "rows_per_s": metrics.get("rows_per_s"),
        }))

    def on_trial_complete(
        self, iteration: int, trials: list[Any], trial: Any, **info: Any
    ) -> None:
        result = trial.last_result
        state: State = "pruned"
        if FAILED in result:
            state = "failed"
        elif FINISHED in result or result.get(EPOCH, 0) >= self._epochs:
            state = "complete"
        self._end(trial, state, str(result.get(FAILED, "")))

    def on_trial_recover(
        self, iteration: int, trials: list[Any], trial: Any, **info: Any
    ) -> None:
        number = trial.config["number"]
        warn(self._notify, f"trial {number} failed and is tried again: {cause_of(trial)}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, "failed", cause_of(trial))

    def _end(self, trial: Any, state: State, cause: str) -> None:
        if place := (trial.last_result or {}).get(PLACE):
            place = {**place, "ended": time.time()}
            self._ledger.place(trial.config["number"], place)
            self._notify(Event("place", {"trial": trial.config["number"], **place}))
        record = self._ledger.end(trial.config["number"], state, cause)
        tell_record(self._notify, record)


def tell_trial(notify: Notify, number: int, state: str, params: dict[str, Any], *,
               value: float | None = None, epoch: int = 0, cause: str = "") -> None:
    notify(Event("trial", {"number": number, "state": state, "value": value, "params": params,
                           "epoch": epoch, "cause": cause}))


def tell_record(notify: Notify, record: TrialRecord) -> None:
    tell_trial(notify, record.number, record.state, record.params, value=record.value,
               epoch=max(record.values, default=0), cause=record.cause)


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
    return last.strip().splitlines()[-1].strip()[:300]


def scheduler(tuning: TuningSpec, epochs: int, maximize: bool,
              past: list[TrialRecord]) -> TrialScheduler:
    """ASHA over the best value so far, its rungs filled with the `past` trials' values."""
    if tuning.scheduler == "none":
        return FIFOScheduler()
    better = max if maximize else min
    asha = ASHAScheduler(
        time_attr=EPOCH, metric=OBJECTIVE, mode="max" if maximize else "min", max_t=epochs,
        grace_period=min(tuning.grace_epochs, epochs), reduction_factor=tuning.reduction_factor,
        stop_last_trials=False,  # the loop itself ends a trial after its last epoch
    )
    for record in past:
        trial = SimpleNamespace(trial_id=f"past-{record.number}")
        asha.on_trial_add(None, trial)
        best: float | None = None
        for epoch, value in sorted(record.values.items()):
            best = value if best is None else better(best, value)
            asha.on_trial_result(None, trial, {EPOCH: epoch, OBJECTIVE: best})
    return asha
