"""The network that all peers answer with, 28-256-256-1, one thread."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks.nets import FEATURES, Plain

NAMES = [f"x{i}" for i in range(FEATURES)]


def load() -> Plain:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return Plain().eval()


def probabilities(network: Plain, rows: Sequence[Sequence[float]]) -> list[float]:
    with torch.inference_mode():
        logits = network({"numeric": torch.tensor(rows)})
        values: list[float] = torch.sigmoid(logits[:, 0]).tolist()
    return values
