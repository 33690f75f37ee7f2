"""Rows a second of two workers, beside torchrun's DDP on the same tensors.

Both train 28-256-256-1 with fused AdamW, a global batch of 1024, one thread a worker, on the same
rows; neither clips gradients. The reference is `torchrun --nproc-per-node 2
benchmarks/torchrun_ddp.py`: every rank maps the rows from a file and takes its half of each
permuted batch. They alternate; each counts its best epoch.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.equivalence import job
from benchmarks.harness import Figure, sized, spread
from benchmarks.synthetic import BLOCK, Synthetic, make_block
from raymill.cluster.local import ray_session
from raymill.cluster.spec import ClusterSpec
from raymill.training.distributed import train

WORKERS, BATCH, EPOCHS, ROUNDS = 2, 1024, 3, 2
SCRIPT = Path(__file__).with_name("torchrun_ddp.py")


def write_rows(rows: int, folder: Path) -> None:
    """The rows of `Synthetic(rows)` as files."""
    blocks = [make_block(min(BLOCK, rows - low), low) for low in range(0, rows, BLOCK)]
    for name in ("numeric", "target"):
        np.save(folder / f"{name}.npy", np.concatenate([block[name] for block in blocks]))


def torchrun(folder: Path) -> list[float]:
    """Rows a second of every epoch of the reference."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               f"--nproc-per-node={WORKERS}", str(SCRIPT), str(folder), str(EPOCHS), str(BATCH)]
    subprocess.run(command, check=True, timeout=300, stderr=subprocess.DEVNULL)
    rates: list[float] = json.loads((folder / "rates.json").read_text())
    return rates


def ours(rows: Any, folder: Path) -> list[float]:
    made = job(WORKERS, epochs=EPOCHS, batch_size=BATCH, cpus_per_worker=1, clip_norm=None)
    return [row["rows_per_s"] for row in train(made, rows, folder).history]


def run() -> Figure:
    rows = Synthetic(sized(400_000, 8192))
    rates: dict[str, list[float]] = {"ours": [], "torchrun": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(rows.rows, folder)
        for number in range(ROUNDS):
            rates["torchrun"] += torchrun(folder)
            with ray_session(ClusterSpec(cpus=WORKERS)):
                rates["ours"] += ours(rows, folder / str(number))
    best, reference = max(rates["ours"]), max(rates["torchrun"])
    return Figure(
        name="ddp", unit="rows/s", ours=best, reference=reference,
        reference_is=f"torchrun DDP, {WORKERS} workers", goal="ratio >= 0.9",
        holds=best >= 0.9 * reference,
        details={"rows": rows.rows, "batch": BATCH,
                 **{name: spread(values) for name, values in rates.items()}},
    )
