"""A trial of several workers: Ray Train inside a trial of Ray Tune."""

from __future__ import annotations

import json
import time
from typing import Any

import ray
import torch

from raymill.errors import TrainingError
from raymill.events import Event
from raymill.training.distributed import Share, train_rows
from raymill.training.job import TrainJob
from raymill.training.placement import Rows

from .measures import Meter
from .places import Own, Places
from .trial import Trainable, TrialSession, place


@ray.remote(num_cpus=0)
class RowsHolder:
    """Holds the rows, placed once for all trials; they go when it does."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def rows(self) -> Rows:
        return self._rows


def nested(holder: Any, places: Places, share: Share, meter: Meter) -> Trainable:
    """What Tune runs for a trial of `job.training.workers` workers, each with `share`.

    The trial's own process only waits for them: it holds no CPU. It is not used again, as its end
    is what ends Ray Train's controller when Tune stops the trial.
    """

    def run_trial(config: dict[str, Any]) -> dict[str, Any]:
        with places.running(config) as own:
            return run_in(own, config)

    def run_in(own: Own, config: dict[str, Any]) -> dict[str, Any]:
        job = TrainJob.from_dict(json.loads(config["job"]))
        session = TrialSession(job.metric, job.maximize, torch.device("cpu"), own.checkpoints,
                               place=place(torch.device("cpu")))
        session.go_on()

        def tell(event: Event) -> None:
            if event.kind == "place":
                session.place["gpus"] = sorted({*session.place["gpus"], *event.data["gpus"]})
                session.place["device"] = event.data["device"]
            elif event.kind == "epoch":
                session.report(event.data["metrics"])

        began = time.perf_counter()
        try:
            fitted = train_rows(job, ray.get(holder.rows.remote()), share, own.folder, tell,
                                own.store)
        except TrainingError as error:
            return session.ended(error)
        return session.ended(measures=meter.read(job, fitted, began))

    return run_trial
