"""The whole road on a cluster of four raylets, by the command line alone, on a made-up table like
Adult: `init`, `cluster up --workers 3`, `submit --follow`, `models`, `serve`, `predict`,
`serve stop`, `cluster down`. All the while `ss` is asked what the processes of it listen on.
Survived: a command that ended well; `ss` that saw loopback only; at the end no process and no
listening port. Lost: ports open to others, processes and ports left.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.csv

from benchmarks.adult import ROWS, made
from benchmarks.harness import Survival, sized
from raymill.ports import free_port
from raymill.reaper import marked

LIMIT_S, LOOK_S, GONE_S = 900, 1.0, 15.0
LOOPBACK = ("127.0.0.1", "[::1]", "[::ffff:127.0.0.1]")
ASKED = 100


def listening(home: Path) -> set[str]:
    """`address:port` of what the processes that live by `home` listen on, as `ss` tells it."""
    pids = {f"pid={pid}," for pid in marked(f"RAYMILL_HOME={home}".encode())}
    told = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    return {line.split()[3] for line in told.splitlines() if any(pid in line for pid in pids)}


@contextmanager
def watched(home: Path) -> Iterator[set[str]]:
    """Every address that was listened on while the block ran."""
    seen: set[str] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_S):
            seen.update(listening(home))

    watcher = threading.Thread(target=look, name="ss")
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


class Shell:
    """`raymill ...` in a folder with a home of its own; every step's code and seconds are kept."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder, self.home = folder, home
        self.steps: list[dict[str, Any]] = []

    def __call__(self, *words: str) -> str:
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "raymill", *words], cwd=self.folder, text=True,
            capture_output=True, timeout=LIMIT_S, check=False,
            env={**os.environ, "RAYMILL_HOME": str(self.home)})
        self.steps.append({"command": f"raymill {' '.join(words)}", "exit": done.returncode,
                           "seconds": round(time.monotonic() - began, 1)})
        if done.returncode:
            self.steps[-1]["said"] = (done.stdout + done.stderr)[-1500:]
        return done.stdout


def walk(raymill: Shell) -> dict[str, Any]:
    """The road; what its answers were."""
    rows = made(sized(ROWS, 2000))
    pyarrow.csv.write_csv(rows, raymill.folder / "adult.csv")
    asked = rows.slice(0, ASKED).drop_columns(["income"])
    pyarrow.csv.write_csv(asked, raymill.folder / "asked.csv")
    raymill("init", "income", "--data", "adult.csv", "--target", "income")
    raymill("cluster", "up", "--workers", "3", "--cpus", "1")
    try:
        raymill("submit", "income/raymill.yaml", "--follow", "--set", "tuning.trials=6",
                "--set", "training.epochs=6", "--set", "training.workers=2")
        models = raymill("models", "--json")
        raymill("serve", "income", "--detach", "--set", f"serving.port={free_port()}")
        try:
            answers = raymill("predict", "income", "--input", "asked.csv", "--json")
        finally:
            raymill("serve", "stop", "income")
        jobs = raymill("jobs", "--json")
    finally:
        raymill("cluster", "down")
    return {"champions": sum("champion" in m["aliases"] for m in _said(models, "models")),
            "predictions": len(_said(answers, "predictions")),
            "jobs": [job["status"] for job in _said(jobs, "jobs")]}


def _said(text: str, key: str) -> list[Any]:
    try:
        return list(json.loads(text)[key])
    except (ValueError, KeyError):
        return []


def left_of(home: Path) -> tuple[list[int], set[str]]:
    """Processes and ports that are still there after a while."""
    end = time.monotonic() + GONE_S
    while (left := marked(f"RAYMILL_HOME={home}".encode())) and time.monotonic() < end:
        time.sleep(0.2)
    return left, listening(home)


def run() -> Survival:
    with tempfile.TemporaryDirectory() as place:
        home = Path(place) / "home"
        raymill = Shell(Path(place), home)
        with watched(home) as seen:
            found = walk(raymill)
        processes, ports = left_of(home)
    opened = sorted(each for each in seen if not each.startswith(LOOPBACK))
    good = found == {"champions": 1, "predictions": ASKED, "jobs": ["SUCCEEDED"]}
    checks = [*(step["exit"] == 0 for step in raymill.steps), good, bool(seen) and not opened]
    return Survival(
        name="cluster-road", fault="none: the whole road by a job on 4 raylets, then the end of it",
        injected=len(checks), survived=sum(checks),
        lost=len(opened) + len(processes) + len(ports),
        goal="every command 0; loopback only; 0 processes, 0 listening ports left",
        details={"steps": raymill.steps, "answers": found, "addresses seen": len(seen),
                 "open to others": opened, "processes left": processes, "ports left": sorted(ports)},
    )
