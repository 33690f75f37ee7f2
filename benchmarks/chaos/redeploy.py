"""Ten new versions become the champion under load, and no prediction is lost.

One replica alone, which no restart could change without a gap. Each version is another bundle: it
is proven in a process of its own, loaded beside the old, made the registry's champion, and then
answers. One-row JSON requests in an open loop at a third of what the replica does: proof, registry
and client share its machine. Lost is every request that was not answered 200; each change must be answered for by its version at once.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks.changing import NAME, Stage, said, stage, variation
from benchmarks.harness import Survival, scale, sized
from benchmarks.load import drive, post
from benchmarks.open_loop import Open, drive_open
from benchmarks.served import json_body, port_of
from raymill.serving import change


def run() -> Survival:
    times = sized(10, 2)
    seconds, survived = list[float](), 0
    with tempfile.TemporaryDirectory() as place, stage(
        Path(place), replicas={"min": 1, "max": 1}
    ) as on:
        port, body = port_of(on.served), json_body(1)
        for number in range(times):
            on.register(variation(on.first, Path(place) / str(number), 1 + 0.001 * (number + 1)))
        length = max(2.0, 5 * scale())
        peak = drive("127.0.0.1", port, body, connections=32, duration_s=length)
        rate, request = peak.requests_per_s / 3, post("127.0.0.1", port, body)
        steady = drive_open(port, request, rate=rate, duration_s=2 * length)

        during = Open()

        async def redeploy() -> None:
            nonlocal survived
            for number in range(2, times + 2):
                start = time.monotonic()
                during.mark(f"version {number}")
                survived += await asyncio.to_thread(_promoted, on, number, during)
                during.mark(f"{number} answers")
                seconds.append(time.monotonic() - start)

        drive_open(port, request, rate=rate, meanwhile=redeploy, into=during)
        aliases = {v.version: v.aliases for v in on.registry.versions(NAME)}
    lost = len(during.statuses) - during.count(200)
    return Survival(
        name="redeploy", fault="another version becomes the champion of one replica under load",
        injected=times, survived=survived, lost=lost, goal="0 lost; each answers at once",
        details={"rate": rate, "requests": len(during.statuses),
                 "lost": during.lost(), "slowest": during.slowest(),
                 "phases": [(round(at, 1), name) for at, name in during.marks],
                 "p99_ms": during.p99_ms(200), "steady_p99_ms": steady.p99_ms(200),
                 "seconds": [round(each, 1) for each in seconds],
                 "aliases": {str(version): list(names) for version, names in aliases.items()}},
    )


def _promoted(on: Stage, number: int, during: Open) -> bool:
    def proven(text: str) -> None:
        during.mark(f"{number} is proven")
        said(text)

    change.promote(on.served, on.version(number), actor="bench", reason="", said=proven)
    answers = [httpx.post(on.served.url + "/predict", content=json_body(1),
                          headers={"content-type": "application/json"}, timeout=30) for _ in range(5)]
    return all(answer.json()["version"] == number for answer in answers)
