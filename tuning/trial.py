"""One trial: the training loop, inline in a warm actor that Ray Tune uses again."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import torch
from ray import tune

from raymill.errors import TrainingError
from raymill.training.checkpoint import adopt, newest_good, read_progress
from raymill.training.job import TrainJob
from raymill.training.loop import fit
from raymill.training.session import StopTraining, pick_device
from raymill.training.shard import Shard
from raymill.training.watchdog import dump_on_signal, stack_file

from .hangs import Heart
from .measures import Meter
from .places import Own, Places

if TYPE_CHECKING:
    from raymill.stores import Store

# Keys of what a trial reports to Tune.
EPOCH, METRICS, OBJECTIVE, FINISHED, FAILED = "epoch", "metrics", "objective", "finished", "failed"
MEASURES = "measures"  # what was measured of a trial that came to its end
PLACE = "place"  # {"gpus": Ray's ids, "device": torch's, "began": epoch seconds}

Trainable = Callable[[dict[str, Any]], dict[str, Any]]
Shards = tuple[Shard, Shard]


@dataclass
class TrialSession:
    """A `Session` whose epochs go to Tune, with the best value so far for ASHA to compare.

    Tune ends a trial inside `report`, by `SystemExit`. One that is a share of the epochs trains
    those after `start`, up to `until`.
    """

    metric: str
    maximize: bool
    device: torch.device
    folder: Path | None = None
    rank: int = 0
    world_size: int = 1
    best: float = math.nan
    place: dict[str, Any] = field(default_factory=dict)
    start: int = 0
    until: int | None = None
    stopping: bool = False
    heart: Heart | None = None
    store: Store | None = None

    def alive(self, typical_s: Callable[[], float]) -> None:
        if self.heart is not None:
            self.heart.alive(typical_s)

    def report(self, metrics: Mapping[str, float]) -> None:
        self._weigh(metrics)
        told = {name: float(number) for name, number in metrics.items()}
        if self.heart is not None:  # the driver answers when it is done with what comes of it
            self.heart.rest()
        tune.report({EPOCH: int(metrics["epoch"]), METRICS: told, OBJECTIVE: self.best,
                     PLACE: self.place})
        if self.heart is not None:
            self.heart.beat()
        if self.until is not None and metrics["epoch"] >= self.until:
            raise StopTraining

    def ended(self, error: TrainingError | None = None,
              measures: Mapping[str, float] | None = None) -> dict[str, Any]:
        """A trial's last report.

        A `TrainingError` of the loop's own is a finding about the parameters (the loss diverged),
        so it ends the trial at once; one that wraps another error is raised, for Tune to try again.
        """
        if error is not None and error.__cause__ is not None:
            raise error
        said = {FAILED: str(error)} if error is not None else {FINISHED: True}
        return {**said, OBJECTIVE: self.best, PLACE: self.place, MEASURES: dict(measures or {})}

    def go_on(self) -> None:
        """After a try or a search that was cut off: report the epochs that it kept, for whoever
        counts reports, and for those that were not yet told."""
        latest = self.latest_checkpoint()
        history = read_progress(latest).history if latest is not None else []
        for metrics in history:
            if metrics["epoch"] > self.start:
                self.report(metrics)

    def _weigh(self, metrics: Mapping[str, float]) -> None:
        value = float(metrics[f"val_{self.metric}"])
        better = max if self.maximize else min
        if math.isfinite(value):
            self.best = better(self.best, value) if math.isfinite(self.best) else value

    def latest_checkpoint(self) -> Path | None:
        """Where a trial that was cut off goes on, when it is tried again on the same machine."""
        return newest_good(self.folder) if self.folder is not None else None


def trainable(desk: Any, places: Places, cpus: float, gpu: float, meter: Meter) -> Trainable:
    """What Tune runs for a trial of one worker.

    Its configuration is `number`, `again` (see `Places.running`) and `job`, the JSON of a
    `TrainJob`; of a share of the epochs also `start`, `until` and `donor`, the number of the trial
    to go on from. Rows are had of the `desk`, to which steps are told; epochs are checkpointed in
    `places`.
    """

    def run_trial(config: dict[str, Any]) -> dict[str, Any]:
        with places.running(config) as own:
            return run_in(own, config)

    def run_in(own: Own, config: dict[str, Any]) -> dict[str, Any]:
        heart = Heart(desk, config["number"])
        heart.beat()
        torch.set_num_threads(max(1, int(cpus)))
        job = TrainJob.from_dict(json.loads(config["job"]))
        device = pick_device("auto" if gpu > 0 else "never")
        session = TrialSession(job.metric, job.maximize, device, own.checkpoints,
                               place=place(device), start=config.get("start", 0),
                               until=config.get("until"), heart=heart, store=own.published)
        began = time.perf_counter()
        with dump_on_signal(stack_file(own.folder, 0)):
            try:
                train, validation = _shards(desk, job.training.seed)
                if config.get("donor") is not None:
                    _start_from(own, places.of(config["donor"]), job.identity(train.rows))
                session.go_on()
                fitted = fit(job, train, validation, session)
            except StopTraining:  # an earlier try had come to the end of its share
                return session.ended()
            except TrainingError as error:
                return session.ended(error)
            finally:
                heart.rest()
        return session.ended(measures=meter.read(job, fitted, began))

    return run_trial


def _start_from(own: Own, donor: Own, identity: str) -> None:
    """Begin with the weights of another trial, unless an earlier try has begun already."""
    if newest_good(own.checkpoints) is None:
        here = donor if donor.store is None else replace(donor, folder=own.folder / "donor")
        here.fetch()
        source = newest_good(here.checkpoints)
        if source is None:
            raise TrainingError(f"trial {donor.folder.name}, which this one goes on from, left no "
                                "checkpoint")
        adopt(source, own.checkpoints, identity)
        own.publish()


def place(device: torch.device) -> dict[str, Any]:
    """Where a trial computes, from now on; Ray shows its process the GPUs that it holds only."""
    return {"gpus": sorted(int(gpu) for gpu in ray.get_gpu_ids()), "device": str(device),
            "began": time.time()}


_kept: dict[tuple[str, int], Shards] = {}


def _shards(desk: Any, seed: int) -> Shards:
    """The shards of this search, made once a process."""
    key = (desk._actor_id.hex(), seed)
    if key not in _kept:
        _kept.clear()
        blocks = ray.get(desk.blocks.remote())
        train, validation = (ray.get(blocks[split]) for split in ("train", "validation"))
        _kept[key] = Shard(train, seed), Shard(validation, seed)
    return _kept[key]
