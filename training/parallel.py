"""The few collectives of the loop; each is a plain value with one worker."""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor


def gather_counts(rows: int, world_size: int, device: torch.device) -> list[int]:
    """The rows of every rank."""
    if world_size == 1:
        return [rows]
    counts = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world_size)]
    dist.all_gather(counts, torch.tensor([rows], dtype=torch.int64, device=device))
    return [int(count) for count in counts]


def sum_over_ranks(value: Tensor, world_size: int) -> Tensor:
    """The sum over ranks, on every rank."""
    if world_size > 1:
        dist.all_reduce(value)
    return value


def gather_rows(rows: Tensor, counts: list[int]) -> NDArray[np.generic]:
    """The rows of all ranks, one rank after the other; `counts` says how many each has."""
    if len(counts) == 1:
        return np.asarray(rows.cpu().numpy())
    padded = rows.new_zeros((max(counts), *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return np.concatenate([p[:n].cpu().numpy() for p, n in zip(parts, counts, strict=True)])


def from_rank_zero(values: list[int], world_size: int, device: torch.device) -> list[int]:
    """What rank 0 gave, on every rank; all give equally many."""
    if world_size == 1:
        return values
    told = torch.tensor(values, dtype=torch.int64, device=device)
    dist.broadcast(told, src=0)
    return [int(value) for value in told]
