"""The checkpoints of trials: of those that run or go on, and of the best for what is made of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from raymill.events import Event, Notify
from raymill.stores import Folder, Store


class Kept:
    """Keeps what lies in `place` of the `most` best trials, and of those that have not ended.

    It listens to the search: `listening` gives the `Notify` to hand on.
    """

    def __init__(self, place: Store, most: int, maximize: bool) -> None:
        self.place, self._most, self._sign = place, most, -1 if maximize else 1
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
        for name in self.place.folders():
            if not name.isdigit() or int(name) not in stay:
                self.place.remove(name)
        if isinstance(self.place, Folder) and not stay:
            self.place.remove()

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
        if str(number) not in self.place.folders():
            return
        self._ranked = sorted([*self._ranked, (self._sign * value, number)])
        for _, worse in self._ranked[self._most :]:
            self._drop(worse)
        del self._ranked[self._most :]

    def _drop(self, number: int) -> None:
        self.place.remove(str(number))
