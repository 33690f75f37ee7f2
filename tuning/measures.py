"""What is measured of a trial's model beside its validation metrics."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import torch
from torch import Tensor

from raymill.training.checkpoint import load_weights
from raymill.training.job import TrainJob
from raymill.training.model import build_model
from raymill.training.result import FitResult
from raymill.training.shard import TARGET, as_tensor

if TYPE_CHECKING:
    from raymill.data.prepare import Prepared

LATENCIES = frozenset({"p50_latency_ms", "p99_latency_ms"})
CALLS = 300
_ROWS = 64


@dataclass(frozen=True)
class Meter:
    """Measures a trial that came to its end: `asked` of it, with some validation `rows`."""

    asked: frozenset[str] = frozenset()
    rows: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)

    def read(self, job: TrainJob, fitted: FitResult, began: float) -> dict[str, float]:
        """`train_seconds` since `began` (a try that died before is not in it), `model_mb` of the
        best epoch's weights, and where asked `p50_latency_ms` and `p99_latency_ms`.

        The latency is of the model alone, one row at a time on one thread of this machine's CPU,
        without the transform and the network; what other trials do meanwhile adds to it.
        """
        found = {"train_seconds": perf_counter() - began}
        weights = fitted.weights if fitted.checkpoint is None else load_weights(fitted.checkpoint)
        found["model_mb"] = sum(t.numel() * t.element_size() for t in weights.values()) / 1e6
        if LATENCIES & self.asked:
            model = build_model(job).eval()
            model.load_state_dict(weights)
            taken = _latencies(model, {name: as_tensor(array) for name, array in self.rows.items()})
            p50, p99 = np.quantile(taken, [0.5, 0.99])
            found |= {"p50_latency_ms": float(p50), "p99_latency_ms": float(p99)}
        return found


def meter(prepared: Prepared, asked: Collection[str]) -> Meter:
    """A meter for what a search asks of its trials."""
    rows = {}
    if LATENCIES & set(asked):
        block = ray.get(next(iter(prepared.tensors("validation"))))
        rows = {name: np.array(array[:_ROWS]) for name, array in block.items() if name != TARGET}
    return Meter(frozenset(asked), rows)


def _latencies(model: torch.nn.Module, rows: Mapping[str, Tensor]) -> list[float]:
    """Milliseconds of each call, after a tenth of them to warm up."""
    there = len(next(iter(rows.values())))
    batches = [{name: t[i % there : i % there + 1] for name, t in rows.items()}
               for i in range(CALLS + CALLS // 10)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    taken = []
    try:
        with torch.inference_mode():
            for batch in batches:
                began = perf_counter()
                model(batch)
                taken.append(1000 * (perf_counter() - began))
    finally:
        torch.set_num_threads(threads)
    return taken[CALLS // 10:]
