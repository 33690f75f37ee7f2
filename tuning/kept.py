"""The checkpoints of trials: of those that run or go on, and of the best for what is made of them."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

from raymill.errors import ArtifactError
from raymill.events import Event, Notify
from raymill.training.checkpoint import CHECKPOINTS, newest_good, of_epoch, read_progress

FOLDER = "trials"


class Kept:
    """Keeps the folders of the `most` best trials below `folder`, and of those that have not ended.

    It listens to the search: `listening` gives the `Notify` to hand on.
    """

    def __init__(self, folder: Path, most: int, maximize: bool) -> None:
        self.folder, self._most, self._sign = folder, most, -1 if maximize else 1
        self._ranked: list[tuple[float, int]] = []

    def begin(self, known: Iterable[tuple[int, float | None]], go_on: Collection[int]) -> None:
        """Start with the trials that an earlier call finished, and those that `go_on`."""
        for number, value in known:
            if value is not None:
                self._rank(number, value)
        self.sweep(go_on)

    def sweep(self, go_on: Collection[int]) -> None:
        """Remove all folders but those of the best, and of trials that `go_on`."""
        stay = {*go_on, *(number for _, number in self._ranked)}
        for path in self.folder.glob("*"):
            if not path.name.isdigit() or int(path.name) not in stay:
                shutil.rmtree(path, ignore_errors=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def listening(self, notify: Notify) -> Notify:
        def tell(event: Event) -> None:
            if event.kind == "trial" and event.data["state"] != "running":
                self._ended(event.data["number"], event.data["state"], event.data["value"])
            notify(event)

        return tell

    def _ended(self, number: int, state: str, value: float | None) -> None:
        if state == "complete" and value is not None:
            self._rank(number, value)
        if number not in [kept for _, kept in self._ranked]:
            self._drop(number)

    def _rank(self, number: int, value: float) -> None:
        """Trials without a folder (their result was known) have nothing to keep."""
        if not (self.folder / str(number)).is_dir():
            return
        self._ranked = sorted([*self._ranked, (self._sign * value, number)])
        for _, worse in self._ranked[self._most :]:
            self._drop(worse)
        del self._ranked[self._most :]

    def _drop(self, number: int) -> None:
        shutil.rmtree(self.folder / str(number), ignore_errors=True)


def best_checkpoint(folder: Path, number: int) -> Path | None:
    """The checkpoint of a kept trial's best epoch; None: there is none whose hashes hold."""
    own = folder / FOLDER / str(number) / CHECKPOINTS
    newest = newest_good(own)
    if newest is None:
        return None
    try:
        return of_epoch(own, read_progress(newest).best_epoch)
    except ArtifactError:
        return None
