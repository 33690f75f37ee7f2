"""Rows of tensors, in an order that (seed, epoch) decides."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from copy import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .balance import resampled

Block = Mapping[str, NDArray[np.generic]]
Batch = dict[str, Tensor]
TARGET = "target"


def as_tensor(array: NDArray[np.generic]) -> Tensor:
    """The array's own memory as a tensor; rows in the object store are read-only, and only read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(array))


def equal_steps(counts: Sequence[int], batch_size: int) -> tuple[int, list[int]]:
    """The steps of an epoch, and each rank's rows a step, for ranks of `counts` rows.

    About `batch_size` rows a step over all ranks. In every step some rank has rows, and after the
    last none has any left. The steps are of equal size: a last one of a few rows would be noise.
    """
    wanted = max(1, -(-sum(counts) // batch_size))
    sizes = [max(1, -(-count // wanted)) for count in counts]
    # Sizes are rounded up, so the rows may be taken in fewer steps than were wanted.
    return steps_of(counts, sizes), sizes


def steps_of(counts: Sequence[int], sizes: Sequence[int]) -> int:
    """The steps until no rank has rows left."""
    return max(-(-count // size) for count, size in zip(counts, sizes, strict=True))


def step_rows(step: int, counts: Sequence[int], sizes: Sequence[int]) -> int:
    """The rows of all ranks in step `step` of an epoch."""
    return sum(min(size, max(0, count - step * size))
               for size, count in zip(sizes, counts, strict=True))


def permutation(rows: int, seed: int, epoch: int, stretch: int = 0) -> Tensor:
    """The order `[rows]` of a shard's rows in an epoch, or of those that are left in a further
    stretch of it (see `position`)."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch + (stretch << 40))
    return torch.randperm(rows, generator=generator)


class Shard:
    """The rows of some blocks as tensors by name, `target` among them.

    One block is used where it lies (zero-copy from the object store); several are joined once.

    Attributes:
        shared: every worker holds these same rows, and takes its part of each global batch; else
            they are this worker's alone.
        taken: rows of an epoch; others than `rows` where classes are resampled.
    """

    def __init__(self, blocks: Sequence[Block], seed: int = 0, *, shared: bool = False) -> None:
        filled = [block for block in blocks if len(block[TARGET])]
        self.seed, self.shared = seed, shared
        self._rates: Tensor | None = None
        self.tensors: Batch = {}
        for name in filled[0] if filled else ():
            parts = [as_tensor(block[name]) for block in filled]
            self.tensors[name] = parts[0] if len(parts) == 1 else torch.cat(parts)
        self.rows = self.taken = len(self.tensors[TARGET]) if filled else 0

    @classmethod
    def joined(cls, first: Shard, second: Shard) -> Shard:
        """The rows of both, in this order; a copy."""
        other = copy(first)
        other.tensors = {name: torch.cat([tensor, second.tensors[name]])
                         for name, tensor in first.tensors.items()
                         } if first.rows and second.rows else {**first.tensors, **second.tensors}
        other.rows = other.taken = first.rows + second.rows
        return other

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def on(self, device: torch.device) -> Shard:
        """The same rows and order, on `device`."""
        other = copy(self)
        other.tensors = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return other

    def own(self, rank: int, ranks: int) -> Shard:
        """The rows that are this rank's alone: of shared ones every `ranks`-th, so that each rank
        has rows from everywhere."""
        if not self.shared or ranks == 1:
            return self
        other = copy(self)
        other.shared = False
        other.tensors = {name: tensor[rank::ranks] for name, tensor in self.tensors.items()}
        other.rows = other.taken = len(other.tensors[TARGET]) if other.tensors else 0
        return other

    def take(self, numbers: Tensor) -> Batch:
        """The rows with these numbers."""
        chosen = numbers.to(self.tensors[TARGET].device)
        return {name: t.index_select(0, chosen) for name, t in self.tensors.items()}

    def resampled(self, rates: Tensor) -> Shard:
        """The same rows, of which an epoch takes those of class k `rates[k]` times."""
        other = copy(self)
        other._rates = rates
        other.taken = len(resampled(self.tensors[TARGET], rates, torch.Generator()))
        return other

    def order(self, epoch: int, stretch: int = 0, left: Tensor | None = None) -> Tensor:
        """The rows of an epoch in their order; of those in `left` only, in a further stretch."""
        if self._rates is not None:
            draw = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            rows = resampled(self.tensors[TARGET], self._rates, draw)
            return rows[permutation(len(rows), self.seed, epoch, stretch)]
        if left is None:
            return permutation(self.rows, self.seed, epoch, stretch)
        return left[permutation(len(left), self.seed, epoch, stretch)]

    def batches(
        self, epoch: int, batch_size: int, *, shuffle: bool = True, start: int = 0,
        stretch: int = 0, left: Tensor | None = None, rank: int = 0, ranks: int = 1,
    ) -> Iterator[Batch]:
        """Batches of at most `batch_size` rows, each row once, from position `start` (in rows).

        With several `ranks` the batches are global: those of all ranks, in order, make them up.
        """
        order = self.order(epoch, stretch, left) if shuffle else None
        rows = self.rows if order is None else len(order)
        for first in range(start, rows, batch_size):
            size = min(batch_size, rows - first)
            low, high = first + size * rank // ranks, first + size * (rank + 1) // ranks
            if order is None:
                yield {name: tensor[low:high] for name, tensor in self.tensors.items()}
            else:
                yield self.take(order[low:high])
