"""This rank's batches of an epoch, from where a run stopped in it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

import torch
from torch import Tensor

from .guard import digest
from .parallel import gather_counts
from .position import Position, Stretch
from .session import Session
from .shard import Batch, Shard, equal_steps, step_rows, steps_of

COMPARED = 65_536  # row numbers that stand for an order


class Feed:
    """Gives the batches of one epoch after the other, and keeps the position.

    Where the rows are shared, each rank takes its part of every global batch: batches, order and
    position are the same on any number of ranks. Else each rank goes through rows of its own.

    Attributes:
        shares: the rows of every rank's shard; of a shared one, all of them.
        steps, sizes: of a whole epoch, and every rank's rows a step.
        position: where in the epoch the run is; a checkpoint holds it.
    """

    def __init__(self, shard: Shard, session: Session, batch_size: int) -> None:
        device, world = session.device, session.world_size
        self.shard = shard
        if shard.shared:
            self._share, self._part = 0, (session.rank, world)
            self.shares, self.seeds = [shard.taken], [shard.seed]
        else:
            self._share, self._part = session.rank, (0, 1)
            self.shares = gather_counts(shard.taken, world, device)
            self.seeds = gather_counts(shard.seed, world, device)
        self.offset = [0, *accumulate(self.shares)][self._share]
        self.steps, self.sizes = equal_steps(self.shares, batch_size)
        self._batch_size = batch_size
        self.position = Position()
        self.resumed = False  # in the middle of a stretch
        self._counts = self.shares
        self._left: Tensor | None = None

    @property
    def rows(self) -> int:
        """Of an epoch, over all ranks."""
        return sum(self.shares)

    def order_digest(self, epoch: int) -> int:
        """A hash of the order that the ranks share, from its beginning; 0 where each has its own."""
        return digest(self.shard.order(epoch)[:COMPARED]) if self.shard.shared else 0

    @property
    def most(self) -> int:
        """This rank's rows in a step, at most."""
        size, (_, ranks) = self.sizes[self._share], self._part
        return -(-size // ranks)

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
        self._left, self._counts = None, self.shares
        if len(left):  # empty before a first stretch: all rows are
            parts = torch.split(left, self.shares)
            self._left = parts[self._share].nonzero().squeeze(1)
            self._counts = [int(part.sum()) for part in parts]
            _, self.stretch.sizes = equal_steps(self._counts, self._batch_size)
        return steps_of(self._counts, self.stretch.sizes) - self.stretch.steps

    def batches(self, epoch: int) -> Iterator[Batch]:
        """This rank's batches of the opened epoch; they may end before those of other ranks, or
        be empty in a step of fewer rows than ranks."""
        size, (rank, ranks) = self.stretch.sizes[self._share], self._part
        return self.shard.batches(epoch, size, start=self.stretch.steps * size, rank=rank,
                                  ranks=ranks, stretch=self.number, left=self._left)

    def rows_now(self) -> int:
        """The rows of all ranks in the step that comes."""
        return step_rows(self.stretch.steps, self._counts, self.stretch.sizes)

    def chosen(self, epoch: int, ago: int = 0) -> Tensor:
        """The rows of this rank's batch of `ago` steps ago, by their places among all ranks'."""
        size, (rank, ranks) = self.stretch.sizes[self._share], self._part
        order = self.shard.order(epoch, self.number, self._left)
        low = max(0, self.stretch.steps - ago) * size
        whole = order[low : low + size] + self.offset
        return whole[len(whole) * rank // ranks : len(whole) * (rank + 1) // ranks]

    def finish(self) -> None:
        """The epoch is over."""
        self.position = Position()
