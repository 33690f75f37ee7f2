"""Seconds from `raymill rollback NAME` to the first answer of the version before.

Two replicas; the command is started as a user starts it, in a process of its own, while a client
asks one request after another and notes which version answered. Counted is the time from the
command's start to the first answer of the other version, and to the last of the one that was to go;
in the details, the command's own whole time too: it ends once the registry knows. A rollback of a
rollback is one, so the versions change places time after time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.changing import NAME, Stage, said, stage, variation
from benchmarks.harness import Figure, sized, spread
from benchmarks.served import json_body, two
from raymill.serving import change

GOAL_S = 2.0


def run() -> Figure:
    turns = list[dict[str, float]]()
    with tempfile.TemporaryDirectory() as place, stage(Path(place), replicas=two()) as on:
        number = on.register(variation(on.first, Path(place) / "second", 1.0001))
        change.promote(on.served, on.version(number), actor="bench", reason="", said=said)
        for turn in range(sized(10, 3)):
            turns.append(_timed(on, to=1 if turn % 2 == 0 else number))
        champion = on.registry.resolve(NAME).version
    seen: dict[str, Any] = {key: spread([turn[key] for turn in turns]) for key in turns[0]}
    right = champion == (1 if len(turns) % 2 else number)
    return Figure(
        name="rollback", unit="s to the first answer", ours=seen["first_s"]["median"],
        reference=GOAL_S, reference_is="the goal", goal=f"each <= {GOAL_S:g} s, none lost",
        holds=right and seen["first_s"]["max"] <= GOAL_S and not seen["lost"]["max"],
        details={"turns": len(turns), **seen},
    )


def _timed(on: Stage, to: int) -> dict[str, float]:
    """One rollback; times from its command's start."""
    answers, ended = list[tuple[float, int, int]](), threading.Event()

    def ask() -> None:
        with httpx.Client() as client:
            while not ended.is_set():
                answer = client.post(on.served.url + "/predict", content=json_body(1),
                                     headers={"content-type": "application/json"})
                version = answer.json()["version"] if answer.status_code == 200 else 0
                answers.append((time.perf_counter(), answer.status_code, version))
                ended.wait(0.005)

    client = threading.Thread(target=ask)
    client.start()
    start = time.perf_counter()
    command = [sys.executable, "-m", "raymill", "rollback", NAME]
    try:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL,
                       env=os.environ | {"RAYMILL_HOME": str(on.registry.home.path)})
        whole = time.perf_counter() - start
    finally:
        ended.set()
        client.join()
    return {"first_s": min(at for at, _, version in answers if version == to) - start,
            "last_of_old_s": max(at for at, _, version in answers if version != to) - start,
            "whole_s": whole, "lost": sum(status != 200 for _, status, _ in answers)}
