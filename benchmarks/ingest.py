"""Training rows a second of raymill's loop, beside the bare torch loop on tensors in memory.

All train the same 28-256-256-1 network with fused AdamW, batch 1024, shuffled, one worker, the
same threads. Ours is the whole loop (`training.loop.fit`: schedule, clipping, finite checks, watch)
on rows that lie in Ray's object store, placed as for a run; the floor is randperm, index_select,
forward, backward, step. Beside them: the same bare loop over `iter_torch_batches` of a Ray data set
with tensor columns, and the floor with gradient clipping, which ours does too. They alternate, and
each counts its best epoch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import ray
import ray.data
import torch
from ray.data.block import BlockAccessor

from benchmarks.harness import Figure, sized, spread
from benchmarks.nets import FEATURES, SCHEMA, Plain
from raymill.cluster.local import ray_session
from raymill.cluster.spec import ClusterSpec
from raymill.training.job import TrainJob
from raymill.training.loop import fit
from raymill.training.session import InlineSession
from raymill.training.shard import Shard
from raymill.training.spec import TrainingSpec

BATCH, BLOCK = 1024, 32_768
ROUNDS, EPOCHS = 3, 2
Pair = tuple[torch.Tensor, torch.Tensor]


def in_memory(x: torch.Tensor, y: torch.Tensor) -> Iterator[Pair]:
    order = torch.randperm(len(x))
    for low in range(0, len(x), BATCH):
        chosen = order[low : low + BATCH]
        yield x.index_select(0, chosen), y.index_select(0, chosen)


def by_ray_data(rows: ray.data.Dataset) -> Iterator[Pair]:
    for batch in rows.iter_torch_batches(batch_size=BATCH, local_shuffle_buffer_size=BLOCK):
        yield batch["numeric"], batch["target"].float()


def bare_epoch(batches: Iterator[Pair], rows: int, clip: bool = False) -> float:
    """Rows a second of one epoch of the bare loop."""
    model = Plain()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    started = time.perf_counter()
    for x, y in batches:
        output = model({"numeric": x}).squeeze(1)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(output, y)
        optimizer.zero_grad()
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return rows / (time.perf_counter() - started)


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
    rows = sized(1_000_000, 4096)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, FEATURES), dtype=np.float32)
    y = (x[:, 0] + rng.standard_normal(rows) > 0).astype(np.int64)
    floor_x, floor_y = torch.from_numpy(x), torch.from_numpy(y.astype(np.float32))
    rates: dict[str, list[float]] = {"ours": [], "floor": [], "clipped": [], "ray": []}
    with ray_session(ClusterSpec(cpus=2)):
        train = Shard([ray.get(ray.put({"numeric": x, "target": y}))], shared=True)
        validation = Shard([{"numeric": x[:2048], "target": y[:2048]}], shared=True)
        tables = [BlockAccessor.batch_to_arrow_block(
            {"numeric": x[low : low + BLOCK], "target": y[low : low + BLOCK]})
            for low in range(0, rows, BLOCK)]
        ray.data.DataContext.get_current().enable_progress_bars = False
        data_set = ray.data.from_arrow(tables).materialize()
        del tables
        for _ in range(ROUNDS):
            rates["floor"] += [bare_epoch(in_memory(floor_x, floor_y), rows)
                               for _ in range(EPOCHS)]
            rates["ours"] += our_epochs(train, validation)
            rates["clipped"].append(bare_epoch(in_memory(floor_x, floor_y), rows, clip=True))
            rates["ray"].append(bare_epoch(by_ray_data(data_set), rows))
    ours, floor, plain = (max(rates[name]) for name in ("ours", "floor", "ray"))
    holds = ours >= 0.95 * floor and ours >= 1.5 * plain
    return Figure(
        name="ingest", unit="rows/s", ours=ours, reference=floor,
        reference_is="bare torch loop in memory", holds=holds,
        goal="ratio >= 0.95, and >= 1.5 of iter_torch_batches",
        details={"rows": rows, "batch": BATCH, "threads": torch.get_num_threads(),
                 "of iter_torch_batches": ours / plain,
                 "of the floor with clipping": ours / max(rates["clipped"]),
                 **{name: spread(values) for name, values in rates.items()}},
    )
