"""Rows made in Ray's tasks, so that the driver of a figure never holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from benchmarks.nets import FEATURES

BLOCK = 32_768
VALIDATION = 2048


def make_block(rows: int, seed: int) -> dict[str, NDArray[Any]]:
    """Rows whose class follows from their first column."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, FEATURES), dtype=np.float32)
    return {"numeric": x, "target": (x[:, 0] + rng.standard_normal(rows) > 0).astype(np.int64)}


@dataclass(frozen=True)
class Synthetic:
    """What training takes of prepared data."""

    rows: int

    def tensors(self, split: str) -> list[Any]:
        task = ray.remote(num_cpus=0.5)(make_block)
        if split == "validation":
            return [task.remote(VALIDATION, 10**6)]
        return [task.remote(min(BLOCK, self.rows - low), low) for low in range(0, self.rows, BLOCK)]

    def tensor_bytes(self, split: str) -> int:
        return (VALIDATION if split == "validation" else self.rows) * (4 * FEATURES + 8)
