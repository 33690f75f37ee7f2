"""The folder of a run's checkpoints: what is taken up, and what is kept."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from raymill.errors import Problem, TrainingError, UsageError
from raymill.events import Notify, note, warn

from . import checkpoint
from .checkpoint import Progress
from .parallel import from_rank_zero
from .parts import Groups, Parts, Shapes
from .saver import Saver
from .session import Session


class Shelf:
    """Every rank has one and calls its methods in the same order; rank 0 reads and writes, where
    the model lies `in_parts` every rank its own.

    `tick` is called while the run waits for the disk.

    Attributes:
        number: of the checkpoint that comes next.
    """

    def __init__(
        self, session: Session, notify: Notify, tick: Callable[[], None] = lambda: None,
        in_parts: bool = False,
    ) -> None:
        self.session, self.notify = session, notify
        self.number = 1
        self._folder = session.folder
        self._saver: Saver | None = None
        if self._folder is None:
            return
        if session.rank == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            checkpoint.sweep(self._folder)
            if session.store is not None:
                from . import mirrored

                mirrored.mirror(session.store, self._folder, lambda text: warn(notify, text))
        parts = self._parts(self._folder) if in_parts else None
        if session.rank == 0 or in_parts:
            self._saver = Saver(self._folder, tick, parts, session.store)

    def _parts(self, folder: Path) -> Parts:
        session = self.session
        token = from_rank_zero([secrets.randbits(62)], session.world_size, session.device)[0]
        return Parts(folder, session.rank, session.world_size, token)

    def newest(self, identity: str, metric: str) -> tuple[Path, Progress] | None:
        """The newest good checkpoint and what it says; None: the run begins.

        Raises:
            UsageError: the checkpoints are those of another job.
        """
        folder, session = self._folder, self.session
        if folder is None:
            return None
        found = self._find(folder) if session.rank == 0 else [0, 0, 1]
        number, best_lost, self.number = from_rank_zero(found, session.world_size, session.device)
        if number == 0:
            return None
        path = checkpoint.at(folder, number)
        if session.store is not None and session.rank > 0:
            from . import mirrored

            path = mirrored.bring(session.store, number, folder)
        progress = checkpoint.read_progress(path)
        if progress.identity != identity:
            raise UsageError(Problem(
                rule="the checkpoints of a folder must be those of the job that goes on from them",
                got=f"another job's ({progress.identity}, ours is {identity})",
                where=str(folder), cure="Take another folder, or remove it."))
        if best_lost:
            _forget_best(progress, number, metric)
        return path, progress

    def _find(self, folder: Path) -> list[int]:
        """Rank 0's answer: the checkpoint to go on from (0: none), whether the best one that it
        knows of is lost, and the number of the next."""
        notify = self.notify
        newest = max(checkpoint.numbers(folder), default=0)
        found = checkpoint.find(folder)
        for number, problem in found.damaged.items():
            warn(notify, f"a checkpoint is damaged and is not taken: {problem}")
            checkpoint.remove(folder, number)
        if found.damaged and not found.number:
            warn(notify, f"no checkpoint in {folder} is good: training starts from the beginning")
        best_lost = 0
        if found.number:
            best = checkpoint.read_progress(checkpoint.at(folder, found.number)).best_checkpoint
            if best not in (0, found.number) and (p := checkpoint.problem_of(folder, best)):
                best_lost = 1
                warn(notify, f"the best epoch's checkpoint is damaged: {p} The best is looked for "
                             "among the later epochs")
        return [found.number, best_lost, newest + 1]

    def tell(self, progress: Progress, exact: bool, before: Mapping[str, Any]) -> None:
        """Say, and take down, where the run goes on and how exactly."""
        steps = progress.position.steps
        place = f"after epoch {progress.epoch}" + (f" and {steps} steps" if steps else "")
        how = "bitwise as if never interrupted"
        if not exact:
            changed = ", ".join(f"{key} was {before.get(key)} and is {value}"
                                for key, value in progress.setting.items()
                                if before.get(key) != value)
            how = "every row once an epoch, not bitwise: " + (changed or "a GPU's sums vary")
        progress.resumes.append({"epoch": progress.epoch, "steps": steps,
                                 "exact": "bitwise" if exact else "samples"})
        if self.session.rank == 0:
            note(self.notify, f"goes on {place} ({how})")

    def put(
        self, groups: Groups, progress: Progress, shapes: Shapes | None = None
    ) -> None:
        """Keep `groups` of tensors; they are copied now and written while the run goes on.
        `shapes` are those of tensors in parts (see `checkpoint.Snapshot`).

        Raises:
            TrainingError: the checkpoint before this one could not be written.
        """
        number = self.number
        self.number += 1
        if self._saver is not None:
            self._saver.save(checkpoint.snapshot(groups, progress, shapes), number)

    def check(self) -> None:
        """Raise what went wrong with a checkpoint in the background."""
        if self._saver is not None:
            self._saver.check()

    def close(self) -> None:
        """Wait until every checkpoint is on disk."""
        if self._saver is not None:
            self._saver.close()

    def abandon(self) -> None:
        """Close after an error, which is told rather than one of the last checkpoint's."""
        if self._saver is not None:
            with suppress(TrainingError):
                self._saver.abandon()


def setting_of(
    device: torch.device, world_size: int, strategy: str = "ddp"
) -> dict[str, Any]:
    """What two processes must share for the same sums of floats."""
    return {"device": device.type, "workers": world_size, "threads": torch.get_num_threads(),
            "torch": torch.__version__, **({"strategy": strategy} if world_size > 1 else {})}


def _forget_best(progress: Progress, number: int, metric: str) -> None:
    """The epoch that checkpoint `number` ends, if it ends one, is the best that is left."""
    progress.best, progress.best_epoch, progress.best_checkpoint = None, 0, 0
    if not progress.position.stretches:
        progress.best = progress.history[-1][f"val_{metric}"]
        progress.best_epoch, progress.best_checkpoint = progress.epoch, number
    progress.stale = 0
