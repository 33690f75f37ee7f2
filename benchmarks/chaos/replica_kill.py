"""Replicas of a service are killed (SIGKILL) under load, and no prediction is lost.

Two replicas, one-row JSON requests in an open loop at half of what they do together; one replica
after another is killed as soon as both run again. Lost is every request that was not answered 200.
The client does not retry. The 99th percentile of all that time stands beside that of a steady time.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.harness import Survival, scale, sized
from benchmarks.load import drive, post
from benchmarks.open_loop import Open, drive_open
from benchmarks.served import json_body, plain_bundle, port_of, replicas_of, service
from raymill.serving.service import status as services

_BACK_S, _SETTLED_S = 60.0, 1.0


def run() -> Survival:
    kills = sized(20, 2)
    back: list[float] = []
    with tempfile.TemporaryDirectory() as place:
        home = Path(place) / "home"
        with service(plain_bundle(Path(place)), home) as served:
            port, body = port_of(served), json_body(1)
            request = post("127.0.0.1", port, body)
            seconds = max(2.0, 10 * scale())
            peak = drive("127.0.0.1", port, body, connections=32, duration_s=seconds)
            rate = peak.requests_per_s / 2
            steady = drive_open(port, request, rate=rate, duration_s=seconds)

            during = Open()

            async def kill() -> None:
                rng = random.Random(0)
                for number in range(kills):
                    await asyncio.sleep(_SETTLED_S)
                    processes = await asyncio.to_thread(replicas_of, served)
                    victim = rng.choice(processes)
                    during.mark(f"kill {number}")
                    victim.kill()
                    back.append(await asyncio.to_thread(_until_back, home, victim))

            drive_open(port, request, rate=rate, meanwhile=kill, into=during)
    lost = len(during.statuses) - during.count(200)
    ratio = during.p99_ms(200) / steady.p99_ms(200)
    return Survival(
        name="replica-kill", fault="SIGKILL to one of two replicas under load", injected=kills,
        survived=kills if ratio <= 3 else 0, lost=lost, goal="0 lost; p99 <= 3x steady",
        details={"peak_requests_per_s": peak.requests_per_s, "rate": rate,
                 "requests": len(during.statuses),
                 "lost": during.lost(), "slowest": during.slowest(),
                 "p99_ms": during.p99_ms(200), "steady_p99_ms": steady.p99_ms(200),
                 "p99_ratio": ratio, "back_s": [round(each, 1) for each in back]},
    )


def _until_back(home: Path, victim: psutil.Process) -> float:
    """Seconds until two replicas answer again."""
    start = time.monotonic()
    while time.monotonic() - start < _BACK_S:
        (current,) = services(home, "bench")
        alive = [each for each in replicas_of(current) if each.pid != victim.pid]
        if current.replicas == 2 and len(alive) == 2:
            break
        time.sleep(0.25)
    return time.monotonic() - start
