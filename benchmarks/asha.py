"""Epochs that ASHA runs, beside the same search without pruning, and what it costs in quality.

Both searches, one after the other, try the same 40 random configurations of the same network on the
Adult table, or on one made like it where RAYMILL_DATA has none (`data` in the details says which). The
best validation ROC AUC must be within one standard error (Hanley and McNeil 1982, of the unpruned
best on these validation rows) of the unpruned search's.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from benchmarks.adult import ROWS, adult
from benchmarks.harness import Figure, sized
from raymill.cluster.local import ray_session
from raymill.cluster.spec import ClusterSpec
from raymill.data.prepare import Prepared
from raymill.training.spec import ModelSpec, TrainingSpec
from raymill.tuning.search import search
from raymill.tuning.spec import TuningSpec

EPOCHS = 18
SPACE = {
    "training.lr": {"low": 1e-4, "high": 3e-2, "log": True},
    "training.weight_decay": {"low": 1e-5, "high": 3e-1, "log": True},
    "model.width": {"choice": [32, 64, 128]},
    "model.dropout": {"low": 0.0, "high": 0.6},
}


def searched(prepared: Prepared, trials: int, scheduler: str, folder: Path) -> dict[str, Any]:
    """One search's best value, epochs and seconds."""
    tuning = TuningSpec.model_validate({
        "trials": trials, "sampler": "random", "scheduler": scheduler, "grace_epochs": 2,
        "reduction_factor": 3, "space": SPACE})
    training = TrainingSpec(epochs=EPOCHS, batch_size=512, patience=None)
    model = ModelSpec.model_validate(
        {"family": "mlp", "depth": 2, "width": 64, "numeric_embedding": "none"})
    began = time.perf_counter()
    found = search(model, training, "roc_auc", tuning, prepared, folder / scheduler)
    states = [trial.state for trial in found.trials]
    return {"best": found.best_value, "epochs": sum(len(t.values) for t in found.trials),
            "seconds": round(time.perf_counter() - began, 1), "trial": found.best_trial,
            "configurations": {json.dumps(trial.params, sort_keys=True) for trial in found.trials},
            "states": {state: states.count(state) for state in sorted(set(states))}}


def standard_error(auc: float, positives: int, negatives: int) -> float:
    """Of a ROC AUC (Hanley and McNeil 1982)."""
    one, two = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = (auc * (1 - auc) + (positives - 1) * (one - auc**2)
              + (negatives - 1) * (two - auc**2))
    return math.sqrt(spread / (positives * negatives))


def run() -> Figure:
    trials, rows = sized(40, 9), sized(ROWS, 2000)
    with tempfile.TemporaryDirectory() as place, ray_session(ClusterSpec()):
        folder = Path(place)
        prepared, kind = adult(folder, rows)
        whole = searched(prepared, trials, "none", folder)
        pruned = searched(prepared, trials, "asha", folder)
        target = prepared.table("validation").column("income")
        counts = {each["values"]: each["counts"] for each in pc.value_counts(target).to_pylist()}
    if whole.pop("configurations") != pruned.pop("configurations"):
        raise RuntimeError("the two searches tried different configurations")
    few, many = sorted(counts.values())
    error = standard_error(whole["best"], few, many)
    lost = whole["best"] - pruned["best"]
    share = pruned["epochs"] / whole["epochs"]
    return Figure(
        name="asha", unit="epochs", ours=pruned["epochs"], reference=whole["epochs"],
        reference_is="the same search unpruned",
        goal="ratio <= 0.4, best ROC AUC within one standard error",
        holds=share <= 0.4 and lost <= error,
        details={"data": kind, "trials": trials, "asha": pruned, "unpruned": whole,
                 "lost": lost, "standard_error": error, "validation": counts},
    )
