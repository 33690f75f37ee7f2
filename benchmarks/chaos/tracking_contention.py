"""Eight trials that train and report every epoch at once, and one SQLite store of MLflow.

The driver alone writes to MLflow, from the run's journal. Survived: the search ends well, MLflow
answers a reader all the while, no lock error is met by either, the parent and its eight trials are
there while the search goes on, and in the end every metric of every epoch that the run's journal
holds is there exactly once, with its value.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

from benchmarks.harness import Survival, sized
from benchmarks.prepared import make_payments
from raymill.tracking.home import Home
from raymill.tracking.store import open_store

TRIALS = 8
SPEC = """\
name: contention
data: {source: payments, target: is_fraud, drop: [transaction_id, customer_id, terminal_id]}
model: {family: linear}
training: {epochs: %d, patience: null, batch_size: 256}
cluster: {cpus: %d}
tuning:
  trials: %d
  scheduler: none
  sampler: random
  resources: {cpu: 1}
  space: {training.lr: {low: 1.0e-4, high: 1.0e-2, log: true}}
"""
LIMIT_S = 330.0


class Reader(threading.Thread):
    """Asks MLflow for the runs again and again; keeps what it saw and what went wrong."""

    def __init__(self, home: Path) -> None:
        super().__init__(daemon=True)
        self.home = Home.find(home)
        self.ended = threading.Event()
        self.most_children_live = 0
        self.live_rows = 0
        self.reads = 0
        self.errors: list[str] = []

    def run(self) -> None:
        while not self.ended.wait(0.5):
            if not self.home.db.exists():
                continue
            try:
                self._read()
            except Exception as error:  # noqa: BLE001 - any of them is a finding
                self.errors.append(f"{type(error).__name__}: {str(error).splitlines()[0]}")

    def _read(self) -> None:
        client = open_store(self.home.tracking_uri, self.home)
        experiment = client.get_experiment_by_name("contention")
        if experiment is None:
            return
        runs = client.search_runs([experiment.experiment_id])
        parents = {run.info.run_id for run in runs
                   if "raymill.trial" not in run.data.tags and run.info.status == "RUNNING"}
        children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") in parents]
        self.most_children_live = max(self.most_children_live, len(children))
        self.live_rows = max(self.live_rows, sum("val_loss" in c.data.metrics for c in children))
        self.reads += 1


Fact = tuple[int, int, str, float]  # trial, epoch, metric, value


def told(home: Path) -> list[Fact]:
    """Every metric of every epoch in the journal of the run."""
    [journal] = home.glob("runs/*/journal.jsonl")
    entries = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    return [(entry["data"]["trial"], entry["data"]["epoch"], name, float(value))
            for entry in entries if entry["kind"] == "epoch"
            for name, value in entry["data"]["metrics"].items()]


def kept(database: Path, names: Collection[str]) -> list[Fact]:
    """The same of MLflow's own tables: each row of those metrics of the trials' runs."""
    query = """select t.value, m.step, m.key, m.value from metrics m join tags t
        on t.run_uuid = m.run_uuid and t.key = 'raymill.trial'"""
    with closing(sqlite3.connect(database)) as connection:
        return [(int(trial), step, key, value)
                for trial, step, key, value in connection.execute(query) if key in names]


def run() -> Survival:
    epochs = sized(60, 4)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_payments(folder, 2000)
        (folder / "raymill.yaml").write_text(SPEC % (epochs, TRIALS, TRIALS), encoding="utf-8")
        reader = Reader(folder / "home")
        reader.start()
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "raymill", "tune", "raymill.yaml", "--json"], cwd=folder,
            env=os.environ | {"RAYMILL_HOME": str(folder / "home")}, capture_output=True, text=True,
            timeout=LIMIT_S, check=False)
        seconds = time.monotonic() - began
        reader.ended.set()
        reader.join(30)
        said = told(folder / "home")
        names = {name for _, _, name, _ in said}
        found = kept(reader.home.db, names)
        trials = json.loads(done.stdout)["trials"] if done.returncode == 0 else []
    locked = done.stderr.lower().count("locked") + sum("locked" in e.lower() for e in reader.errors)
    wanted = TRIALS * epochs * len(names)
    there = len(set(said) & set(found))
    good = (done.returncode == 0 and not locked and not reader.errors
            and len(set(said)) == there == len(found) == wanted
            and reader.most_children_live == TRIALS)
    return Survival(
        name="tracking-contention", fault="8 trials report every epoch to one SQLite MLflow",
        injected=wanted, survived=wanted if good else min(there, wanted - 1),
        lost=wanted - there,
        goal="lock errors: 0; every metric of every epoch once; the tree is there live",
        details={
            "trials": TRIALS, "epochs": epochs, "metrics": sorted(names), "lock_errors": locked,
            "wanted": wanted, "rows": len(found), "as_told": there,
            "seconds": round(seconds, 1), "reads_meanwhile": reader.reads,
            "reader_errors": reader.errors[:5], "children_seen_live": reader.most_children_live,
            "children_with_metrics_live": reader.live_rows, "exit": done.returncode,
            "states": sorted(t["state"] for t in trials), "stderr": done.stderr[-500:],
        },
    )
