"""kill -9 of `raymill tune` in the middle of its search, then the same command again.

At each of n seeded points (after a seeded number of finished trials, and a seeded time more) the
driver is killed. Survived: the same command then ends well, with all trials asked for and no more;
no finished trial is run again; and no process of the killed run is left.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import Survival, sized
from benchmarks.prepared import make_payments

TRIALS = 8
SPEC = """\
name: chaos
data: {source: payments, target: is_fraud, drop: [transaction_id, customer_id, terminal_id]}
model: {family: mlp, width: 16, depth: 1, numeric_embedding: none}
training: {epochs: 4, batch_size: 512}
tuning:
  trials: %d
  scheduler: none
  concurrency: 2
  space: {training.lr: {low: 1.0e-4, high: 1.0e-2, log: true}}
"""
FINISHED = ("complete", "pruned")
LIMIT_S = 240.0


def start(folder: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"RAYMILL_HOME": str(folder / "home"), "CHAOS": str(folder)}
    log = (folder / "log.txt").open("ab")
    return subprocess.Popen(
        [sys.executable, "-m", "raymill", "tune", "raymill.yaml"], cwd=folder, env=environment,
        stdout=log, stderr=log, start_new_session=True,
    )


def trial_events(folder: Path) -> list[dict[str, Any]]:
    """The trials' events of all runs in the folder, in the order of their time."""
    events = []
    for journal in (folder / "home").glob("runs/*/journal.jsonl"):
        for text in journal.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(text)
            except ValueError:  # the torn last line of a killed run
                continue
            if entry["kind"] == "trial":
                events.append({"time": entry["time"], **entry["data"]})
    return sorted(events, key=lambda event: event["time"])


def finished(events: list[dict[str, Any]]) -> set[int]:
    return {event["number"] for event in events if event["state"] in FINISHED}


def orphans(folder: Path) -> list[int]:
    """Processes whose environment names the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"CHAOS={folder}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def attempt(folder: Path, after: int, more_s: float) -> dict[str, Any]:
    """One kill and one resumption; what came of it."""
    process = start(folder)
    deadline = time.monotonic() + LIMIT_S
    while len(finished(trial_events(folder))) < after and process.poll() is None:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    time.sleep(more_s)
    if process.poll() is not None:  # it was faster than the kill: nothing was injected
        return {"injected": False, "exit": process.returncode}
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    killed_at = time.time()
    before = finished(trial_events(folder))
    gone_by = time.monotonic() + 15
    while orphans(folder) and time.monotonic() < gone_by:
        time.sleep(0.2)
    left = orphans(folder)
    again = start(folder)
    try:
        code = again.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        again.kill()
        code = again.wait()
    events = trial_events(folder)
    rerun = sorted({
        event["number"] for event in events
        if event["time"] > killed_at and event["state"] == "running" and event["number"] in before
    })
    return {"injected": True, "finished_before": sorted(before), "rerun": rerun, "exit": code,
            "finished": len(finished(events)), "orphans": len(left), "after": after,
            "more_s": round(more_s, 2)}


def run() -> Survival:
    rng = random.Random(0)
    outcomes = list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data"
        make_payments(data, 6000)
        for number in range(sized(20)):
            folder = Path(place) / str(number)
            shutil.copytree(data, folder)
            (folder / "raymill.yaml").write_text(SPEC % TRIALS, encoding="utf-8")
            outcomes.append(attempt(folder, rng.randrange(1, TRIALS - 2), rng.uniform(0, 0.8)))
    injected = [outcome for outcome in outcomes if outcome["injected"]]
    good = [
        outcome for outcome in injected
        if outcome["exit"] == 0 and not outcome["rerun"] and outcome["orphans"] == 0
        and outcome["finished"] == TRIALS
    ]
    return Survival(
        name="search-kill", fault="kill -9 of the driver mid-search", injected=len(injected),
        survived=len(good), lost=sum(len(outcome["rerun"]) for outcome in injected),
        goal="resumes n of n; finished trials run again: 0; processes left: 0",
        details={"outcomes": outcomes},
    )
