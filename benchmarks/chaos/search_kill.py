"""kill -9 of `raymill tune` in the middle of its search, then the same command again.

A seeded search of one trial at a time is run once unbroken. Then, at each of n seeded points (after a
seeded number of finished trials, and a seeded time more), the driver of the same search is killed.
Survived: the same command then ends well, with all trials asked for and no more; no finished trial
is run again; the trial that ran goes on from its last checkpoint, so that both searches together
make no more steps than the unbroken one and those of an epoch (and of the time that a checkpoint
takes to get to the disk); the finished trials have the very parameters, in the very order, of the
unbroken search; no trial is left running or waiting in the study; and no process of the killed run
is left. The model counts its own training steps, in a file.
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

TRIALS = 20
SPEC = """\
name: chaos
data: {source: payments, target: is_fraud, drop: [transaction_id, customer_id, terminal_id]}
model: {family: "counted:build"}
training: {epochs: 6, batch_size: 512}
tuning:
  trials: %d
  grace_epochs: 1
  concurrency: 1
  space:
    training.lr: {low: 1.0e-4, high: 1.0e-2, log: true}
    training.weight_decay: {low: 1.0e-4, high: 1.0e-1, log: true}
    training.schedule: {choice: [constant, cosine]}
"""
NET = '''
import time
from pathlib import Path

from torch import nn

STEPS = Path(__file__).parent / "steps"


class Counted(nn.Module):
    """A linear model of the numbers that counts its training steps, and takes its time for each."""

    def __init__(self, schema):
        super().__init__()
        self.layer = nn.Linear(len(schema.numeric), schema.outputs)

    def forward(self, batch):
        if self.training:
            time.sleep(0.01)
            with STEPS.open("ab", buffering=0) as file:
                file.write(b".")
        return self.layer(batch["numeric"])


def build(schema):
    return Counted(schema)
'''
FINISHED = ("complete", "pruned")
WRITTEN_STEPS = 10  # 0.1 s: the last checkpoint's way to the disk, while training goes on
LIMIT_S = 240.0


def start(folder: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"RAYMILL_HOME": str(folder / "home"), "CHAOS": str(folder)}
    log = (folder / "log.txt").open("ab")
    return subprocess.Popen(
        [sys.executable, "-m", "raymill", "tune", "raymill.yaml"], cwd=folder, env=environment,
        stdout=log, stderr=log, start_new_session=True,
    )


def told(folder: Path, kind: str = "trial") -> list[dict[str, Any]]:
    """The events of a kind of all runs in the folder, in the order of their time."""
    events = []
    for journal in (folder / "home").glob("runs/*/journal.jsonl"):
        for text in journal.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(text)
            except ValueError:  # the torn last line of a killed run
                continue
            if entry["kind"] == kind:
                events.append({"time": entry["time"], **entry["data"]})
    return sorted(events, key=lambda event: event["time"])


def finished(events: list[dict[str, Any]]) -> set[int]:
    return {event["number"] for event in events if event["state"] in FINISHED}


def sequence(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parameters of the finished trials, in the order of their ends."""
    return [event["params"] for event in events if event["state"] in FINISHED]


def steps(folder: Path) -> int:
    """How many training steps were made in the folder."""
    return (folder / "steps").stat().st_size


def unfinished(folder: Path) -> int:
    """How many trials the study still holds as running or waiting."""
    import optuna

    [journal] = (folder / "home").glob("cache/search/*/study.journal")
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    study = optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))
    return sum(trial.state.name in ("RUNNING", "WAITING") for trial in study.trials)


def said(folder: Path) -> str:
    """The end of what the searches in the folder said: the folder itself is removed."""
    return (folder / "log.txt").read_text(encoding="utf-8", errors="replace")[-2000:]


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


def attempt(folder: Path, after: int, more_s: float, unbroken: Path) -> dict[str, Any]:
    """One kill and one resumption; what came of it."""
    process = start(folder)
    deadline = time.monotonic() + LIMIT_S
    while len(finished(told(folder))) < after and process.poll() is None:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    time.sleep(more_s)
    if process.poll() is not None:  # it was faster than the kill: nothing was injected
        return {"injected": False, "exit": process.returncode}
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    killed_at = time.time()
    before = finished(told(folder))
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
    events = told(folder)
    rerun = sorted({
        event["number"] for event in events
        if event["time"] > killed_at and event["state"] == "running" and event["number"] in before
    })
    return {"injected": True, "finished_before": sorted(before), "rerun": rerun, "exit": code,
            "finished": len(finished(events)), "orphans": len(left), "after": after,
            "same_sequence": sequence(events) == sequence(told(unbroken)),
            "unfinished": unfinished(folder), "more_s": round(more_s, 2),
            "steps_twice": steps(folder) - steps(unbroken),
            "goes_on": sum("goes on with trial" in e["cause"] for e in events),
            "said": said(folder) if code else ""}


def run() -> Survival:
    rng = random.Random(0)
    outcomes = list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as place:
        first = Path(place) / "unbroken"
        make_payments(first, 6000)
        (first / "counted.py").write_text(NET, encoding="utf-8")
        (first / "raymill.yaml").write_text(SPEC % TRIALS, encoding="utf-8")
        if code := start(first).wait(LIMIT_S):
            raise RuntimeError(f"the unbroken search ended with {code}: {said(first)}")
        epoch = round(steps(first) / len(told(first, "epoch")))
        for number in range(sized(10)):
            folder = Path(place) / str(number)
            shutil.copytree(first, folder, ignore=shutil.ignore_patterns(
                "search", "runs", "mlflow.db*", "log.txt", "steps"))  # its prepared data is used again
            after = rng.randrange(1, TRIALS - 2)
            outcomes.append(attempt(folder, after, rng.uniform(0, 0.8), first))
    injected = [outcome for outcome in outcomes if outcome["injected"]]
    good = [
        outcome for outcome in injected
        if outcome["exit"] == 0 and not outcome["rerun"] and outcome["orphans"] == 0
        and outcome["finished"] == TRIALS and outcome["same_sequence"]
        and not outcome["unfinished"] and outcome["steps_twice"] <= epoch + WRITTEN_STEPS
    ]
    return Survival(
        name="search-kill", fault="kill -9 of the driver mid-search", injected=len(injected),
        survived=len(good), lost=sum(len(outcome["rerun"]) for outcome in injected),
        goal="resumes n of n with the parameters of an unbroken search; finished trials run "
             "again: 0; steps made twice: at most an epoch's of the running trial; trials left "
             "running: 0; processes left: 0",
        details={"steps_an_epoch": epoch, "outcomes": outcomes},
    )
