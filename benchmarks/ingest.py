"""Training rows a second of raymill's loop, beside the bare torch loop on tensors in memory.

Both train the same 28-256-256-1 network with fused AdamW, batch 1024, shuffled, one worker, the
same threads. Ours is the whole loop (`training.loop.fit`: schedule, clipping, finite checks) on a
`Shard` whose blocks lie in Ray's object store; the floor is randperm, index_select, forward,
backward, step. The two alternate, and each counts its best epoch.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import ray
import torch

from benchmarks.harness import Figure, sized, spread
from benchmarks.nets import FEATURES, SCHEMA, Plain
from raymill.cluster.local import ray_session
from raymill.cluster.spec import ClusterSpec
from raymill.training.job import TrainJob
from raymill.training.loop import fit
from raymill.training.session import InlineSession
from raymill.training.shard import Shard
from raymill.training.spec import TrainingSpec

BATCH = 1024
ROUNDS, EPOCHS = 3, 3


def bare_epoch(x: torch.Tensor, y: torch.Tensor) -> float:
    """Rows a second of one epoch of the floor."""
    model = Plain()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    started = time.perf_counter()
    order = torch.randperm(len(x))
    for low in range(0, len(x), BATCH):
        chosen = order[low : low + BATCH]
        output = model({"numeric": x.index_select(0, chosen)}).squeeze(1)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            output, y.index_select(0, chosen)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return len(x) / (time.perf_counter() - started)


def our_epochs(train: Shard, validation: Shard) -> list[float]:
    """Rows a second of each epoch of ours."""
    job = TrainJob(
        family="benchmarks.nets:build", params={}, metric="roc_auc", schema=SCHEMA,
        project=str(Path(__file__).parents[1]),
        training=TrainingSpec(epochs=EPOCHS, batch_size=BATCH, patience=None),
    )
    session = InlineSession()
    fit(job, train, validation, session)
    return [report["rows_per_s"] for report in session.reports]


def run() -> Figure:
    rows = sized(500_000, 4096)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, FEATURES), dtype=np.float32)
    y = (x[:, 0] + rng.standard_normal(rows) > 0).astype(np.int64)
    floor_x, floor_y = torch.from_numpy(x), torch.from_numpy(y.astype(np.float32))
    with ray_session(ClusterSpec(cpus=1)):
        refs = [
            ray.put({"numeric": x[low : low + 32_768], "target": y[low : low + 32_768]})
            for low in range(0, rows, 32_768)
        ]
        train = Shard(ray.get(refs), seed=0)
        validation = Shard([{"numeric": x[:2048], "target": y[:2048]}], seed=0)
        ours, floor = list[float](), list[float]()
        for _ in range(ROUNDS):
            floor += [bare_epoch(floor_x, floor_y) for _ in range(EPOCHS)]
            ours += our_epochs(train, validation)
    ratio = max(ours) / max(floor)
    return Figure(
        name="ingest", unit="rows/s", ours=max(ours), reference=max(floor),
        reference_is="bare torch loop in memory", goal="ratio >= 0.95", holds=ratio >= 0.95,
        details={"rows": rows, "batch": BATCH, "threads": torch.get_num_threads(),
                 "ours": spread(ours), "floor": spread(floor)},
    )
