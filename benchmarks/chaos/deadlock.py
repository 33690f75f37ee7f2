"""Searches that could wait for ever: trials of several workers on few CPUs, and shared GPUs.

1. Two workers a trial on 2 CPUs: one trial at a time completes, and what a pruned or failed one
   held is free again.
2. The same with a CPU kept for data, and with three workers: refused before anything starts, with
   the arithmetic.
3. Eight trials at half a GPU on 4 GPUs that Ray only counts: at most 2 at a time share one, all
   four are used; the timeline is printed.

A case that is not over in its time has hung: that is what the figure looks for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import Survival, sized
from benchmarks.prepared import make_payments

SPEC = """\
name: deadlock
data: {source: payments, target: is_fraud, drop: [transaction_id, customer_id, terminal_id]}
model: {family: linear}
training: {epochs: 4, batch_size: 256}
tuning:
  sampler: random
  space: {training.lr: {low: 1.0e-4, high: 1.0e-1, log: true}}
"""
WORKERS = ["cluster.cpus=2", "tuning.resources.workers=2", "tuning.grace_epochs=1"]
SHARED = ["cluster.cpus=8", "cluster.gpus=4", "tuning.resources.gpu=0.5", "tuning.scheduler=none",
          "training.epochs=100", "training.patience=null"]  # longer than eight starts take
LIMIT_S = 170.0


def tune(folder: Path, home: str, *settings: str) -> dict[str, Any]:
    """One `raymill tune`; `hung` when it had to be killed."""
    sets = [part for setting in settings for part in ("--set", setting)]
    process = subprocess.Popen(
        [sys.executable, "-m", "raymill", "tune", "raymill.yaml", "--json", *sets], cwd=folder,
        env=os.environ | {"RAYMILL_HOME": str(folder / home)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True)
    began = time.monotonic()
    try:
        out, err = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        return {"hung": True, "stderr": err[-800:]}
    trials = json.loads(out)["trials"] if process.returncode == 0 else []
    return {"hung": False, "exit": process.returncode, "trials": trials, "stderr": err[-800:],
            "seconds": round(time.monotonic() - began, 1)}


def sharing(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """How many trials held each GPU at once, at most."""
    places = [trial["place"] for trial in trials if trial["place"].get("gpus")]
    most = {}
    for gpu in sorted({gpu for place in places for gpu in place["gpus"]}):
        own = [p for p in places if gpu in p["gpus"]]
        most[gpu] = max(sum(p["began"] <= at["began"] < p["ended"] for p in own) for at in own)
    return {"gpus": most, "trials": len(places)}


def timeline(trials: list[dict[str, Any]], width: int = 60) -> list[str]:
    """A line a trial: its GPU, and when it ran."""
    placed = [trial for trial in trials if trial["place"]]
    if not placed:
        return []
    start = min(trial["place"]["began"] for trial in placed)
    end = max(trial["place"]["ended"] for trial in placed)
    lines = []
    for trial in sorted(placed, key=lambda t: (t["place"]["gpus"], t["place"]["began"])):
        place = trial["place"]
        low, high = (round((place[key] - start) / (end - start) * width)
                     for key in ("began", "ended"))
        bar = " " * low + "█" * max(1, high - low)
        lines.append(f"GPU {place['gpus']} trial {trial['number']:>2} |{bar:<{width + 1}}| "
                     f"{place['began'] - start:5.1f} to {place['ended'] - start:5.1f} s")
    return lines


def run() -> Survival:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_payments(folder, 2000)
        (folder / "raymill.yaml").write_text(SPEC, encoding="utf-8")
        nested = tune(folder, "a", *WORKERS, f"tuning.trials={sized(4, 2)}")
        kept = tune(folder, "a", *WORKERS, "tuning.resources.data_cpu=1", "tuning.trials=9")
        three = tune(folder, "a", "cluster.cpus=2", "tuning.resources.workers=3", "tuning.trials=9")
        shared = tune(folder, "b", *SHARED, "tuning.trials=8")
    lines = timeline(shared.get("trials", []))
    print("\n".join(lines), flush=True)
    used = sharing(shared.get("trials", []))
    checks = {
        "two workers on 2 CPUs complete": not nested["hung"] and nested["exit"] == 0,
        "a CPU kept for data is refused": _refused(kept, "2 workers x 1 CPU = 2 CPUs, 1 CPU kept"),
        "three workers are refused": _refused(three, "3 workers x 1 CPU = 3 CPUs"),
        "8 trials share 4 GPUs, 2 at most each": used["trials"] == 8
        and sorted(used["gpus"]) == [0, 1, 2, 3] and max(used["gpus"].values()) <= 2,
    }
    return Survival(
        name="deadlock", fault="workers, data and GPUs that don't fit at once",
        injected=len(checks), survived=sum(checks.values()),
        lost=sum(case["hung"] for case in (nested, kept, three, shared)),
        goal="completes or is refused with the arithmetic; hangs: 0; GPUs shared as asked",
        details={
            "checks": checks, "sharing": used, "timeline": lines,
            "nested": {key: nested.get(key) for key in ("exit", "seconds", "stderr")}
            | {"states": [t["state"] for t in nested.get("trials", [])]},
            "refused": [kept["stderr"].splitlines()[-1:], three["stderr"].splitlines()[-1:]],
        },
    )


def _refused(case: dict[str, Any], arithmetic: str) -> bool:
    return not case["hung"] and case["exit"] == 2 and arithmetic in case["stderr"]
