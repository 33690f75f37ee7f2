"""The last growing of `gbdt`: the best number of trees once more, on the validation rows too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from raymill.events import Event, Notify, note

from .boosting import grown
from .job import TrainJob
from .result import FitResult
from .session import Session
from .shard import Shard

if TYPE_CHECKING:
    from raymill.stores import Store


def regrows(job: TrainJob) -> bool:
    """Whether the job's model is grown a last time on all rows."""
    return job.family == "gbdt" and bool(job.params["regrow"])


def regrow(
    job: TrainJob, train: Shard, validation: Shard, session: Silent, notify: Notify,
    found: FitResult,
) -> FitResult:
    """Grow as many trees as were best in `found`, on this rank's rows of both splits.

    Nothing is chosen by it: its metrics, of rows that it saw, say nothing and are told to nobody.
    One that was cut off goes on like any other growing: `session`'s folder is its own.

    Raises:
        Interrupted: the session was asked to stop; a checkpoint is kept.
    """
    rounds = int(found.history[found.best_epoch - 1]["trees"])
    last = replace(job, params={**job.params, "rounds": max(1, rounds)}).with_training(
        epochs=found.best_epoch, patience=None)
    both = Shard.joined(train, validation)
    boosting = grown(last, both, validation, session, _unless_epoch(notify))
    if session.rank == 0:
        note(notify, f"the {rounds} rounds of the best epoch were grown again, on the validation "
                     f"rows too: {sum(boosting.counts):,} rows")
    return boosting.latest()


@dataclass
class Silent:
    """A session like another, in a place of its own, whose epochs nobody is told of."""

    _session: Session
    folder: Path | None
    store: Store | None = None

    @property
    def rank(self) -> int:
        return self._session.rank

    @property
    def world_size(self) -> int:
        return self._session.world_size

    @property
    def device(self) -> torch.device:
        return self._session.device

    @property
    def stopping(self) -> bool:
        return self._session.stopping

    def report(self, metrics: Mapping[str, float]) -> None:
        """Nobody judges by them."""

    def alive(self, typical_s: Callable[[], float]) -> None:
        self._session.alive(typical_s)


def _unless_epoch(notify: Notify) -> Notify:
    def tell(event: Event) -> None:
        if event.kind != "epoch":
            notify(event)

    return tell
