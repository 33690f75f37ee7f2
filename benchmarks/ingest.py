"""Training rows a second of raymill's loop, beside the bare torch loop on tensors in memory.

All train the same 28-256-256-1 network with fused AdamW, batch 1024, shuffled, one worker, the
same threads. Ours is the whole loop (`training.loop.fit`: schedule, finite checks, position, watch)
on rows that lie in Ray's object store, placed as for a run; the floor is randperm, index_select,
forward, backward, step. Neither clips gradients here; the details have both with clipping, which
is raymill's default. Beside them: the same bare loop over `iter_torch_batches`, of a Ray data set
as a Parquet file gives it (a column a feature; `plain`) and of one with tensor columns. They
alternate; what counts is the median epoch, as the machine's own speed comes and goes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from numpy.typing import NDArray
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
ROUNDS, EPOCHS = 6, 2
Pair = tuple[torch.Tensor, torch.Tensor]


def in_memory(x: torch.Tensor, y: torch.Tensor) -> Iterator[Pair]:
    order = torch.randperm(len(x))
    for low in range(0, len(x), BATCH):
        chosen = order[low : low + BATCH]
        yield x.index_select(0, chosen), y.index_select(0, chosen)


def by_ray_data(rows: ray.data.Dataset) -> Iterator[Pair]:
    for batch in rows.iter_torch_batches(batch_size=BATCH, local_shuffle_buffer_size=BLOCK):
        y = batch.pop("target").float()
        tensors = batch.values()
        yield batch["numeric"] if "numeric" in batch else torch.stack(list(tensors), dim=1), y


def data_sets(x: NDArray[Any], y: NDArray[Any]) -> Iterator[ray.data.Dataset]:
    """The rows in Ray's object store: a column a feature, and one tensor column."""
    plain = {f"x{i}": x[:, i] for i in range(FEATURES)}
    for columns in (plain, {"numeric": x}):
        tables = [BlockAccessor.batch_to_arrow_block(
            {name: np.ascontiguousarray(values[low : low + BLOCK])
             for name, values in {**columns, "target": y}.items()})
            for low in range(0, len(y), BLOCK)]
        yield ray.data.from_arrow(tables).materialize()


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


def our_epochs(train: Shard, validation: Shard, clip: float | None = None) -> list[float]:
    """Rows a second of each epoch of ours."""
    job = TrainJob(
        family="benchmarks.nets:build", params={}, metric="roc_auc", schema=SCHEMA,
        project=str(Path(__file__).parents[1]),
        training=TrainingSpec(epochs=EPOCHS, batch_size=BATCH, patience=None, clip_norm=clip),
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
    rates: dict[str, list[float]] = {
        name: [] for name in ("ours", "floor", "ours clipped", "floor clipped", "plain", "tensor")}
    with ray_session(ClusterSpec(cpus=2)):
        train = Shard([ray.get(ray.put({"numeric": x, "target": y}))], shared=True)
        validation = Shard([{"numeric": x[:2048], "target": y[:2048]}], shared=True)
        ray.data.DataContext.get_current().enable_progress_bars = False
        plain, tensor = data_sets(x, y)
        for number in range(ROUNDS):
            further = number % 3 == 2
            for clipped in (False, True) if further else (False,):
                name = " clipped" if clipped else ""
                rates[f"floor{name}"] += [bare_epoch(in_memory(floor_x, floor_y), rows, clipped)
                                          for _ in range(EPOCHS)]
                rates[f"ours{name}"] += our_epochs(train, validation, 1.0 if clipped else None)
            for name, data_set in (("plain", plain), ("tensor", tensor)):
                if further:
                    rates[name] += [bare_epoch(by_ray_data(data_set), rows)
                                    for _ in range(EPOCHS)]
    found = {name: median(values) for name, values in rates.items()}
    ours, floor = found["ours"], found["floor"]
    return Figure(
        name="ingest", unit="rows/s", ours=ours, reference=floor,
        reference_is="bare torch loop in memory",
        holds=ours >= 0.95 * floor and ours >= 1.5 * found["plain"],
        goal="ratio >= 0.95, and >= 1.5 of plain iter_torch_batches",
        details={"rows": rows, "batch": BATCH, "threads": torch.get_num_threads(),
                 "of plain iter_torch_batches": ours / found["plain"],
                 "of iter_torch_batches, tensor columns": ours / found["tensor"],
                 "both with clipping": found["ours clipped"] / found["floor clipped"],
                 **{name: spread(values) for name, values in rates.items()}},
    )
