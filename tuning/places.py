"""Where the checkpoints of trials lie."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymill.errors import ArtifactError
from raymill.training.checkpoint import CHECKPOINTS, newest_good, numbers, of_epoch, read_progress

if TYPE_CHECKING:  # without a store, a trial's process imports nothing of one
    from raymill.stores import Store

FOLDER = "trials"


@dataclass(frozen=True)
class Own:
    """A trial's: `folder` on this machine, and what is published of it in `store`, if anywhere."""

    folder: Path
    store: Store | None = None

    @property
    def checkpoints(self) -> Path:
        return self.folder / CHECKPOINTS

    @property
    def published(self) -> Store | None:
        return self.store and self.store / CHECKPOINTS

    def fetch(self) -> None:
        """Have the newest and the best checkpoint on this machine."""
        if self.published is not None:
            from raymill.training import mirrored

            mirrored.mirror(self.published, self.checkpoints, lambda text: None)

    def publish(self) -> None:
        """Publish the checkpoints that are here, oldest first."""
        if self.published is not None:
            from raymill.training import mirrored

            for number in reversed(numbers(self.checkpoints)):
                mirrored.put(self.checkpoints, number, self.published)


@dataclass(frozen=True)
class Places:
    """Of all trials of a search: below `folder`, which every node sees; or published in `store`,
    with copies on the machine where a trial runs."""

    folder: Path
    store: Store | None = None

    @property
    def work(self) -> Path:
        """Where they lie while they run; each machine has its own."""
        if self.store is None:
            return self.folder
        from raymill.stores import scratch

        return scratch(self.store)

    @property
    def kept(self) -> Store:
        """Where they lie when they have ended."""
        from raymill.stores import Folder

        return self.store or Folder(self.folder)

    def of(self, number: int) -> Own:
        """A trial's."""
        return Own(self.work / str(number), self.store and self.store / str(number))

    @contextmanager
    def running(self, config: Mapping[str, Any]) -> Iterator[Own]:
        """A trial's own, with what is there of the cut-off trials that it runs `again`."""
        own = self.of(config["number"])
        if own.store is None:
            _take_over(own.folder, [self.of(number).folder for number in config.get("again", ())])
            yield own
            return
        shutil.rmtree(own.folder, ignore_errors=True)
        try:
            own.fetch()
            if not numbers(own.checkpoints):
                self._adopt(own, config.get("again", ()))
            yield own
        finally:
            shutil.rmtree(own.folder, ignore_errors=True)

    def _adopt(self, own: Own, again: Sequence[int]) -> None:
        """Publish anew what the last of the cut-off trials left; theirs goes."""
        for number in again:
            before = self.of(number)
            Own(own.folder, before.store).fetch()
            if numbers(own.checkpoints):
                own.publish()
                self.kept.remove(str(number))
                return

    def best_checkpoint(self, number: int) -> Path | None:
        """The checkpoint of a kept trial's best epoch, on this machine; None: there is none whose
        hashes hold."""
        own = Own(self.folder / str(number), self.of(number).store)
        own.fetch()
        newest = newest_good(own.checkpoints)
        if newest is None:
            return None
        try:
            return of_epoch(own.checkpoints, read_progress(newest).best_epoch)
        except ArtifactError:
            return None


def _take_over(own: Path, before: Sequence[Path]) -> None:
    for other in before:
        if other.is_dir() and not own.exists():
            other.rename(own)
    own.mkdir(parents=True, exist_ok=True)
