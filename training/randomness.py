"""The state of the random generators as a tensor, to draw on after a resume as if never stopped."""

from __future__ import annotations

import torch
from torch import Tensor


def capture(device: torch.device) -> Tensor:
    """The state `[bytes]` of torch's generator, and behind it the GPU's where the run has one."""
    state = torch.get_rng_state()
    if device.type != "cuda":
        return state
    return torch.cat([state, torch.cuda.get_rng_state(device).cpu()])


def replay(state: Tensor, device: torch.device) -> None:
    """Put back what `capture` gave for the same kind of device."""
    size = len(torch.get_rng_state())
    torch.set_rng_state(state[:size].clone())
    if device.type == "cuda" and len(state) > size:
        torch.cuda.set_rng_state(state[size:].clone(), device)


def reseed(seed: int, rank: int, epoch: int, stretch: int) -> None:
    """Begin an epoch, or a further stretch of it, on this rank: what is drawn in it depends on
    nothing else."""
    torch.manual_seed((seed * 4099 + rank) * 1_000_003 + epoch + (stretch << 40))
