"""What Ray Tune runs for a plan: trials of one worker, or of several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import ray

from raymill.errors import UsageError
from raymill.events import Notify, note
from raymill.training.devices import usable_gpus
from raymill.training.distributed import Share
from raymill.training.placement import SPLITS, fits, hold, place_rows
from raymill.training.spec import TrainingSpec

from .capacity import Plan
from .desk import Desk
from .hangs import Hangs
from .measures import Meter
from .nested import RowsHolder, nested
from .orphans import settle
from .places import Places
from .trial import Trainable, trainable

if TYPE_CHECKING:
    from raymill.data.prepare import Prepared


@contextmanager
def launched(
    plan: Plan, prepared: Prepared, places: Places, notify: Notify, meter: Meter,
    training: TrainingSpec,
) -> Iterator[tuple[Trainable, Hangs]]:
    """The trainable, and what finds the trials that hang; while the block runs, the rows that all
    trials share are in the object store. Checkpoints lie in `places`.

    Raises:
        UsageError: a GPU is required, and torch can use none of the cluster's.
    """
    counted_only = plan.gpu > 0 and not usable_gpus()
    if counted_only and training.gpu == "require":
        raise UsageError("training.gpu is require, but torch can use no GPU of the cluster",
                         cure="Set training.gpu to auto, or attach a cluster with GPUs.")
    if counted_only:
        note(notify, "torch can use no GPU here: Ray's are only counted, and trials compute on "
                     "the CPU")
    if plan.workers == 1:
        blocks = hold(prepared) if fits(prepared) else {
            split: prepared.tensors(split) for split in SPLITS}
        with _held(ray.remote(num_cpus=0)(Desk).remote(blocks)) as desk:
            yield (trainable(desk, places, plan.cpu, plan.gpu, meter),
                   Hangs(desk, training.watchdog, places.work))
        return
    share = Share(threads=max(1, int(plan.cpu)), cpus=plan.cpu, gpus=plan.gpu,
                  backend="gloo" if counted_only else None)
    rows = place_rows(prepared, plan.workers, notify)
    with _held(RowsHolder.remote(rows)) as holder:  # type: ignore[attr-defined]
        try:  # the training itself watches its workers
            yield nested(holder, places, share, meter), Hangs(None, "off", places.work)
        finally:
            settle()


@contextmanager
def _held(holder: Any) -> Iterator[Any]:
    try:
        yield holder
    finally:
        ray.kill(holder)
