"""Ranks that should be alike are compared, so that no run trains N unrelated models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from raymill.errors import Problem, TrainingError

PIECE = 1 << 20  # numbers that are hashed at a time
SPREAD = -7046029254386353131  # odd, and far from any pattern
CURES = {
    "row order": "Is a seed made from the rank, or do the workers have other rows?",
    "step": "Every worker must call step as often as the others.",
}
CURE = ("Is a gradient step taken outside the wrapped model, a parameter outside the model, or a "
        "weight changed or seeded by rank?")


def digest(tensor: Tensor) -> int:
    """A hash of the tensor's bits and where they stand; the same on every device."""
    total = 0
    for start, piece in enumerate(tensor.detach().contiguous().reshape(-1).split(PIECE)):
        bits = piece.view(torch.uint8)
        if short := -len(bits) % 4:
            bits = torch.cat([bits, bits.new_zeros(short)])
        words = bits.view(torch.int32).long()
        places = torch.arange(1, len(words) + 1, device=words.device) + start * PIECE * 2
        total += int((words * (places * SPREAD | 1) ^ (words << 17)).sum())
    return (total + (1 << 63)) % (1 << 64) - (1 << 63)


def parameter_digests(model: nn.Module) -> dict[str, int]:
    """A hash of every parameter, by name."""
    return {name: digest(parameter) for name, parameter in model.named_parameters()}


def buffer_digests(model: nn.Module) -> dict[str, int]:
    """A hash of every buffer, by name; a batch norm's are alike before the first step only."""
    return {f"buffer {name}": digest(buffer) for name, buffer in model.named_buffers()}


def check_alike(facts: Mapping[str, int], world_size: int, device: torch.device,
                when: str) -> None:
    """Every rank calls this with facts of the same names, in the same order.

    Raises:
        TrainingError: on every rank, naming the ranks whose facts are not those of most, and the
            first fact that differs.
    """
    if world_size == 1:
        return
    own = torch.tensor(list(facts.values()), dtype=torch.int64, device=device)
    gathered = [torch.empty_like(own) for _ in range(world_size)]
    dist.all_gather(gathered, own)
    every = [tuple(facts_.tolist()) for facts_ in gathered]
    common = Counter(every).most_common(1)[0][0]  # a tie goes to the lowest rank
    apart = [rank for rank, theirs in enumerate(every) if theirs != common]
    if not apart:
        return
    names = list(facts)
    theirs = every[apart[0]]
    first = next(n for n, a, b in zip(names, theirs, common, strict=True) if a != b)
    raise TrainingError(Problem(
        rule="every worker must train the same model on the same order of rows",
        got=f"rank {', '.join(map(str, apart))} differs {when}, first in {first}",
        cure=CURES.get(first, CURE)))
