"""What the trials of a search share, in a process that needs no torch: their rows and their beats."""

from __future__ import annotations

import ray

from .hangs import Pulse


class Desk(Pulse):
    """An actor that holds the references to the tensors of all trials, and knows who gets on.

    References captured in a trainable would be pinned until the driver ends; these go when the desk
    does.
    """

    def __init__(self, blocks: dict[str, list[ray.ObjectRef]]) -> None:
        super().__init__()
        self._blocks = blocks

    def blocks(self) -> dict[str, list[ray.ObjectRef]]:
        return self._blocks
