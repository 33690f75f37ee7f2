"""Tries on a model that leave no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Afterwards weights, batch statistics, gradients and random state are as they were."""
    kept = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    cuda = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=cuda):
            yield
    finally:
        model.load_state_dict(kept)
        model.zero_grad(set_to_none=True)
