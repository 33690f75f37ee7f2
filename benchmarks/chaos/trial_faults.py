"""Trials that raise, run out of memory, return NaN, hang, or are killed, in one search.

Each of the five faults strikes one trial of a search (the killed one's process once, so that its
second try is whole). The memory is truly used up: the trial's process gets a limit of its address
space, and allocates until the allocator gives up. Survived: the search completes, the struck trials
are FAIL (never PRUNED) with their cause in words, the killed one is tried again and completes, and
the others complete.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import Survival
from benchmarks.prepared import fraud
from raymill.cluster.local import ray_session
from raymill.cluster.spec import ClusterSpec
from raymill.events import Event
from raymill.training.spec import ModelSpec, TrainingSpec
from raymill.tuning.search import search
from raymill.tuning.spec import TuningSpec

NETS = '''
import os
import resource
import time
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).parent


class Net(nn.Module):
    """Takes the numbers; `mode` says what goes wrong."""

    def __init__(self, schema, mode):
        super().__init__()
        self.layer = nn.Linear(len(schema.numeric), schema.outputs)
        self.mode, self.calls = mode, 0

    def forward(self, batch):
        self.calls += 1
        out = self.layer(batch["numeric"])
        if self.mode == "nan":
            return out * float("nan")
        if self.mode == "raises" and self.calls > 3:
            raise RuntimeError("a shape does not fit")
        if self.mode == "memory" and self.calls > 3:
            self.use_up()
        if self.mode == "hangs" and self.calls > 3:
            time.sleep(3600)
        if self.mode == "killed" and self.calls > 3 and not (HERE / "killed-once").exists():
            (HERE / "killed-once").touch()
            os.kill(os.getpid(), 9)
        return out


    def use_up(self):
        """Allocate until the process has no more: a quarter of a GB, by its own limit."""
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + 2**28
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
        held = []
        try:
            while True:
                held.append(torch.ones(2**20))
        finally:
            held.clear()


def build(schema, mode="good"):
    return Net(schema, mode)
'''
CAUSES = {"raises": "a shape does not fit", "memory": "Lower training.batch_size",
          "nan": "must stay finite", "hangs": "made no step for"}
MODES = ["good", "raises", "memory", "nan", "killed", "hangs"]


def run() -> Survival:
    events: list[Event] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "faulty_nets.py").write_text(NETS, encoding="utf-8")
        with ray_session(ClusterSpec(cpus=2), folder):
            prepared = fraud(folder, 3000)
            tuning = TuningSpec.model_validate({
                "trials": len(MODES), "sampler": "grid", "scheduler": "none",
                "space": {"model.mode": {"choice": MODES}}})
            found = search(
                ModelSpec(family="faulty_nets:build"),
                TrainingSpec(epochs=3, batch_size=64, watchdog="5s"), None, tuning, prepared, folder / "out", events.append, str(folder))
        by_mode = {trial.params["model.mode"]: trial for trial in found.trials}
    good = {mode: _as_promised(mode, by_mode.get(mode)) for mode in MODES}
    return Survival(
        name="trial-faults", fault="a trial raises, runs out of memory, returns NaN, hangs, is killed",
        injected=len(MODES) - 1, survived=sum(good[mode] for mode in MODES if mode != "good"),
        lost=sum(not good[mode] for mode in MODES),
        goal="the search completes; failed trials are FAIL with their cause; the rest complete",
        details={
            "trials": {mode: {"state": t.state, "cause": t.cause} for mode, t in by_mode.items()},
            "warnings": [e.data["text"] for e in events if e.kind == "warning"],
        },
    )


def _as_promised(mode: str, trial: Any) -> bool:
    if trial is None:
        return False
    if mode in CAUSES:
        return bool(trial.state == "failed" and CAUSES[mode] in trial.cause)
    return bool(trial.state == "complete")
