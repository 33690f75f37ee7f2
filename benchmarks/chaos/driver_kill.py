"""kill -9 of `raymill train` at seeded times, then the same command again, until it ends.

Survived: 15 seconds after each kill no process of the run is left; the next start goes on bitwise;
and the run ends with the weights and optimizer of a run that was never killed.
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
from raymill.training.checkpoint import numbers

from .search_kill import orphans
from .small_run import digest

SPEC = """\
name: chaos
data: {source: payments, target: is_fraud, drop: [transaction_id, customer_id, terminal_id]}
model: {family: mlp, width: 32, depth: 1, numeric_embedding: none}
training: {epochs: 12, batch_size: 64, patience: null, checkpoint_every: 25}
"""
LIMIT_S, GONE_S, KILLS_A_RUN = 240.0, 15.0, 5


def start(folder: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"RAYMILL_HOME": str(folder / "home"), "CHAOS": str(folder)}
    with (folder / "out.json").open("wb") as out, (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "raymill", "train", "raymill.yaml", "--json"], cwd=folder,
            env=environment, stdout=out, stderr=log, start_new_session=True)


def checkpoints(folder: Path) -> Path:
    """Where the run's checkpoints lie, once it has some."""
    found = list((folder / "home" / "cache" / "train").glob("*/train/checkpoints"))
    return found[0] if found else folder / "none"


def newest(folder: Path) -> int:
    return max(numbers(checkpoints(folder)), default=0)


def killed(folder: Path, early: bool, more_s: float) -> dict[str, Any] | None:
    """Start, kill, and count what is left; None: the run ended before the kill."""
    before, process = newest(folder), start(folder)
    deadline = time.monotonic() + LIMIT_S
    while not early and newest(folder) <= before and process.poll() is None:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    time.sleep(more_s)
    if process.poll() is not None:
        return None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    at = time.monotonic()
    while orphans(folder) and time.monotonic() < at + GONE_S:
        time.sleep(0.2)
    return {"early": early, "more_s": round(more_s, 2), "checkpoint": newest(folder),
            "gone_s": round(time.monotonic() - at, 1), "orphans": len(orphans(folder))}


def finished(folder: Path) -> dict[str, Any]:
    """The same command to its end; what it printed."""
    process = start(folder)
    try:
        code = process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    printed = json.loads((folder / "out.json").read_text()) if code == 0 else {}
    return {"exit": code, "resumes": printed.get("resumes", [])}


def run() -> Survival:
    rng = random.Random(0)
    outcomes = list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as place:
        clean = Path(place) / "clean"
        make_payments(clean, 12_000)
        (clean / "raymill.yaml").write_text(SPEC, encoding="utf-8")
        assert finished(clean)["exit"] == 0, (clean / "log.txt").read_text()
        expected = digest(checkpoints(clean))
        left = sized(20)
        while left > 0 and len(outcomes) < 10:
            folder = Path(place) / str(len(outcomes))
            shutil.copytree(clean, folder, ignore=shutil.ignore_patterns("home", "*.json"))
            kills = list[dict[str, Any]]()
            for number in range(min(left, KILLS_A_RUN)):
                early = number == 1
                more_s = rng.uniform(1, 6) if early else rng.uniform(0, 0.8)
                if (kill := killed(folder, early, more_s)) is None:
                    break
                kills.append(kill)
            end = finished(folder)
            same = end["exit"] == 0 and digest(checkpoints(folder)) == expected
            outcomes.append({"kills": kills, **end, "same": same})
            left -= len(kills)
    every = [kill for outcome in outcomes for kill in outcome["kills"]]
    good = [o for o in outcomes if o["same"]
            and all(resume["exact"] == "bitwise" for resume in o["resumes"])]
    return Survival(
        name="driver-kill", fault="kill -9 of the driver of a training", injected=len(every),
        survived=sum(not kill["orphans"] for outcome in good for kill in outcome["kills"]),
        lost=sum(kill["orphans"] for kill in every) + len(outcomes) - len(good),
        goal="equal weight hash; processes left after 15 s: 0",
        details={"seed": 0, "slowest_gone_s": max((k["gone_s"] for k in every), default=0),
                 "outcomes": outcomes},
    )
