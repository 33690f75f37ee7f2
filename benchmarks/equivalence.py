"""Loss curves of 1, 2 and 4 workers, DDP and FSDP, beside that of one worker.

Every run is a whole one by Ray Train on the same rows, seed and global batch, in fp32 on the CPU,
without dropout. `ours` is the largest difference of any epoch's training or validation loss or
metric. Two faults are planted then, as a user might make them: a loop that steps on the model
inside DDP (no all-reduce), and a factory that seeds by rank; the guard must stop both runs and
name the rank.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, sized
from benchmarks.nets import SCHEMA
from benchmarks.synthetic import Synthetic
from raymill.cluster.local import ray_session
from raymill.cluster.spec import ClusterSpec
from raymill.errors import TrainingError
from raymill.training.distributed import train
from raymill.training.job import TrainJob
from raymill.training.spec import TrainingSpec

LIMIT = 1e-5
FAULTS: dict[str, dict[str, Any]] = {
    "no all-reduce": {"loop": "benchmarks.nets:loop_without_all_reduce"},
    "seed by rank": {"family": "benchmarks.nets:build_by_rank"},
}


def job(workers: int, family: str = "benchmarks.nets:build", **training: Any) -> TrainJob:
    return TrainJob(
        family=family, params={}, metric="roc_auc", schema=SCHEMA,
        project=str(Path(__file__).parents[1]),
        training=TrainingSpec.model_validate({
            "epochs": 3, "batch_size": 256, "patience": None, "precision": "fp32",
            "workers": workers, "cpus_per_worker": 0.25, "max_failures": 0, **training}),
    )


def apart(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    """The largest difference of two histories."""
    keys = [key for key in one[0] if key not in ("epoch", "rows_per_s", "lr")]
    return max(abs(a[key] - b[key]) for a, b in zip(one, other, strict=True) for key in keys)


def caught(rows: Any, fault: dict[str, Any], folder: Path) -> str:
    """What the guard says of a planted fault; empty: nothing."""
    try:
        train(job(2, **fault), rows, folder)
    except TrainingError as error:
        return str(error) if "rank 1 differs" in str(error) else ""
    return ""


def run() -> Figure:
    rows: Any = Synthetic(sized(20_000, 2000))
    differences: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name, ray_session(ClusterSpec(cpus=2)):
        folder = Path(name)
        alone = train(job(1), rows, folder / "alone").history
        for strategy in ("ddp", "fsdp"):
            for workers in (2, 4):
                run_name = f"{workers} {strategy}"
                found = train(job(workers, strategy=strategy), rows, folder / run_name)
                differences[run_name] = apart(alone, found.history)
        said = {name: caught(rows, fault, folder / name) for name, fault in FAULTS.items()}
    worst = max(differences.values())
    return Figure(
        name="equivalence", unit="largest difference", ours=worst, reference=LIMIT,
        reference_is="the limit", goal="difference <= 1e-5, and both planted faults caught",
        holds=worst <= LIMIT and all(said.values()),
        details={"rows": rows.rows, "differences": differences, "guard": said,
                 "curve": [row["train_loss"] for row in alone]},
    )
