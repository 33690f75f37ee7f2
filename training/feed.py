"""This rank's batches of an epoch, from where a run stopped in it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

import torch
from torch import Tensor

from .parallel import gather_counts
from .position import Position, Stretch
from .session import Session
from .shard import Batch, Shard, equal_steps, step_rows


class Feed:
    """Gives the batches of one epoch after the other, and keeps the position.

    Attributes:
        shares: the rows of every rank's shard.
        steps, sizes: of a whole epoch, and every rank's rows a step.
        position: where in the epoch the run is; a checkpoint holds it.
    """

    def __init__(self, shard: Shard, session: Session, batch_size: int) -> None:
        device, world = session.device, session.world_size
        self.shard, self.rank = shard, session.rank
        self.shares = gather_counts(shard.rows, world, device)
        self.seeds = gather_counts(shard.seed, world, device)
        self.offset = [0, *accumulate(self.shares)][self.rank]
        self.steps, self.sizes = equal_steps(self.shares, batch_size)
        self._batch_size = batch_size
        self.position = Position()
        self.resumed = False  # in the middle of a stretch
        self._counts = self.shares
        self._left: Tensor | None = None

    @property
    def number(self) -> int:
        """Of the stretch, from 0."""
        return len(self.position.stretches) - 1

    def goes_on(self, position: Position) -> bool:
        """Take up the position of a checkpoint; whether the batches are those that would have
        come. They are not on another number of workers: then the epoch's other rows come in an
        order of their own, each once."""
        self.position = position
        self.resumed = position.goes_on(self.shares, self.seeds)
        return self.resumed or not position.stretches

    @property
    def stretch(self) -> Stretch:
        """Where the epoch is."""
        return self.position.stretches[-1]

    def begin(self, epoch: int) -> int:
        """Open the epoch, or what is left of it; the steps that are to come."""
        position, self.resumed = self.position, False
        if position.goes_on(self.shares, self.seeds):
            left = position.left_before(epoch)
        else:
            left = position.left(epoch)
            position.stretches.append(Stretch(self.shares, self.seeds, self.sizes))
        self._left, self._counts, steps = None, self.shares, self.steps
        if len(left):  # empty before a first stretch: all rows are
            parts = torch.split(left, self.shares)
            self._left = parts[self.rank].nonzero().squeeze(1)
            self._counts = [int(part.sum()) for part in parts]
            steps, self.stretch.sizes = equal_steps(self._counts, self._batch_size)
        return steps - self.stretch.steps

    def batches(self, epoch: int) -> Iterator[Batch]:
        """This rank's batches of the opened epoch; they may end before those of other ranks."""
        size = self.stretch.sizes[self.rank]
        return self.shard.batches(epoch, size, start=self.stretch.steps * size,
                                  stretch=self.number, left=self._left)

    def rows_now(self) -> int:
        """The rows of all ranks in the step that comes."""
        return step_rows(self.stretch.steps, self._counts, self.stretch.sizes)

    def chosen(self, epoch: int, ago: int = 0) -> Tensor:
        """The rows of this rank's batch of `ago` steps ago, by their places among all ranks'."""
        size = self.stretch.sizes[self.rank]
        order = self.shard.order(epoch, self.number, self._left)
        low = max(0, self.stretch.steps - ago) * size
        return order[low : low + size] + self.offset

    def finish(self) -> None:
        """The epoch is over."""
        self.position = Position()
