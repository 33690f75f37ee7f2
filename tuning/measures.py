"""What is measured of a trial's model beside its validation metrics."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import torch
from torch import Tensor

from raymill.training.job import TrainJob
from raymill.training.model import build_model
from raymill.training.shard import TARGET, as_tensor

from .trial import FINISHED, Trainable

if TYPE_CHECKING:
    from raymill.data.prepare import Prepared

MEASURES = "measures"  # the key of what a trial tells of them, with its last report
LATENCIES = frozenset({"p50_latency_ms", "p99_latency_ms"})
CALLS = 300
_ROWS = 64

Rows = dict[str, np.ndarray[Any, Any]]


def measured(run: Trainable, asked: Collection[str], rows: Rows) -> Trainable:
    """`run`, which tells `train_seconds` and what `measure` finds of a trial that came to its end.

    The seconds are of the try that finished.
    """
    def run_trial(config: dict[str, Any]) -> dict[str, Any]:
        began = perf_counter()
        said = run(config)
        if FINISHED not in said:
            return said
        seconds = perf_counter() - began
        job = TrainJob.from_dict(json.loads(config["job"]))
        return {**said, MEASURES: {"train_seconds": seconds, **measure(job, asked, rows)}}

    return run_trial


def some_rows(prepared: Prepared, asked: Collection[str]) -> Rows:
    """A few validation rows to measure with; none where nothing that is asked needs them."""
    if not LATENCIES & set(asked):
        return {}
    block = ray.get(next(iter(prepared.tensors("validation"))))
    return {name: np.array(array[:_ROWS]) for name, array in block.items() if name != TARGET}


def measure(job: TrainJob, asked: Collection[str], rows: Rows) -> dict[str, float]:
    """`model_mb` (of the weights), and where asked `p50_latency_ms` and `p99_latency_ms`.

    The latency is of the model alone, one row at a time on one thread of this machine's CPU,
    without the transform and the network; what other trials do meanwhile adds to it.
    """
    model = build_model(job).eval()
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    found = {"model_mb": size / 1e6}
    if rows and LATENCIES & set(asked):
        taken = _latencies(model, {name: as_tensor(array) for name, array in rows.items()})
        p50, p99 = np.quantile(taken, [0.5, 0.99])
        found |= {"p50_latency_ms": float(p50), "p99_latency_ms": float(p99)}
    return found


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
