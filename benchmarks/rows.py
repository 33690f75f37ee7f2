"""Microseconds a row and the driver's memory, from 0.1 to 1 to 10 million rows.

One worker of Ray Train trains 28-256-256-1, batch 1024, on rows that Ray's tasks make. A size's time
a row is that of its best epoch; its driver memory is what this process grew by at most (resident,
without what it maps of the object store; looked at all along). `ours` is the time a row at the largest size, the reference that
at 1 M.
"""

from __future__ import annotations

import gc
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.equivalence import job
from benchmarks.harness import Figure, sized
from benchmarks.synthetic import Synthetic
from raymill.cluster.local import ray_session
from raymill.cluster.spec import ClusterSpec
from raymill.training.distributed import train

SIZES = {"0.1 M": (100_000, 8), "1 M": (1_000_000, 3), "10 M": (10_000_000, 1)}
FLAT = 0.2  # how much the time a row may differ from that at 1 M
GROWTH_MB = 64.0


def private_mb() -> float:
    """Resident memory of this process that is its own."""
    memory = psutil.Process().memory_info()
    return float(memory.rss - memory.shared) / 2**20


class Peak(threading.Thread):
    """The most that `private_mb` was."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = private_mb()
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.05):
            self.most = max(self.most, private_mb())


def one_size(rows: Any, epochs: int, folder: Path) -> dict[str, float]:
    gc.collect()
    before, began = private_mb(), time.perf_counter()
    peak = Peak()
    peak.start()
    made = job(1, epochs=epochs, batch_size=1024, cpus_per_worker=1)
    history = train(made, rows, folder).history
    took = time.perf_counter() - began
    peak.ended.set()
    peak.join()
    return {"rows": rows.rows, "us_a_row": 1e6 / max(row["rows_per_s"] for row in history),
            "wall_s": took, "driver_mb": peak.most - before}


def run() -> Figure:
    table: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name, ray_session(ClusterSpec(cpus=2)):
        one_size(Synthetic(4096), 1, Path(name) / "warm")  # imports and pools of the driver
        for size, (full, epochs) in SIZES.items():
            table[size] = one_size(Synthetic(sized(full, 4096)), epochs, Path(name) / size)
    print(f"{'rows':>12} {'us a row':>10} {'wall s':>8} {'driver MB':>10}")
    for row in table.values():
        print(f"{row['rows']:12,.0f} {row['us_a_row']:10.3f} {row['wall_s']:8.1f} "
              f"{row['driver_mb']:10.1f}")
    middle = table["1 M"]["us_a_row"]
    flat = all(abs(row["us_a_row"] / middle - 1) <= FLAT for row in table.values())
    grown = max(row["driver_mb"] for row in table.values())
    return Figure(
        name="rows", unit="us a row", ours=table["10 M"]["us_a_row"], reference=middle,
        reference_is="at 1 M rows", holds=flat and grown <= GROWTH_MB,
        goal="time a row flat within 20 %, driver grows by <= 64 MB at every size", details=table,
    )
