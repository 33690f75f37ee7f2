"""Where a run is in its data: which rows of the epoch were taken, on whatever number of workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .shard import permutation


@dataclass
class Stretch:
    """A part of an epoch on one number of workers.

    Attributes:
        shares: the rows of every rank's shard; shards lie one after the other in the whole.
        seeds: of every rank's shard. sizes: rows that every rank takes a step.
        steps: done so far.
    """

    shares: list[int]
    seeds: list[int]
    sizes: list[int]
    steps: int = 0

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Stretch:
        return cls(**state)


@dataclass
class Position:
    """The stretches of the unfinished epoch; most often one, and none between epochs."""

    stretches: list[Stretch] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """Steps done in the epoch."""
        return sum(stretch.steps for stretch in self.stretches)

    def goes_on(self, shares: Sequence[int], seeds: Sequence[int]) -> bool:
        """Whether ranks with these shards can take up the last stretch where it stopped."""
        if not self.stretches:
            return False
        last = self.stretches[-1]
        return last.shares == list(shares) and last.seeds == list(seeds)

    def left(self, epoch: int) -> Tensor:
        """`[rows]` of all ranks' rows: whether no stretch has taken it yet in `epoch`."""
        return _left(self.stretches, epoch)

    def left_before(self, epoch: int) -> Tensor:
        """The same when the last stretch began."""
        return _left(self.stretches[:-1], epoch)


def _left(stretches: Sequence[Stretch], epoch: int) -> Tensor:
    left = torch.ones(sum(stretches[0].shares) if stretches else 0, dtype=torch.bool)
    for number, stretch in enumerate(stretches):
        offset = 0
        for share, seed, size in zip(stretch.shares, stretch.seeds, stretch.sizes, strict=True):
            rows = left[offset : offset + share].nonzero().squeeze(1) + offset
            order = permutation(len(rows), seed, epoch, number)
            left[rows[order[: stretch.steps * size]]] = False
            offset += share
    return left
