"""The checkpoints of the best trials, kept beyond the search for what is made of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from raymill.errors import ArtifactError
from raymill.events import Event, Notify
from raymill.training.checkpoint import newest_good, of_epoch, read_progress

FOLDER = "trials"


class Kept:
    """Keeps the folders of the `most` best trials below `folder`, and of those that run.

    It listens to the search: `listening` gives the `Notify` to hand on.
    """

    def __init__(self, folder: Path, most: int, maximize: bool) -> None:
        self.folder, self._most, self._sign = folder, most, -1 if maximize else 1
        self._ranked: list[tuple[float, int]] = []

    def begin(self, known: Iterable[tuple[int, float | None]]) -> None:
        """Start with the trials that an earlier call finished; drop what was cut off."""
        for number, value in known:
            if value is not None:
                self._rank(number, value)
        best = {number for _, number in self._ranked}
        for path in self.folder.glob("*"):
            if not path.name.isdigit() or int(path.name) not in best:
                shutil.rmtree(path, ignore_errors=True)

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
    own = folder / FOLDER / str(number)
    for place in (own, own / "checkpoints"):  # those of Ray Train lie a folder below
        newest = newest_good(place)
        if newest is not None:
            try:
                return of_epoch(place, read_progress(newest).best_epoch)
            except ArtifactError:
                return None
    return None
