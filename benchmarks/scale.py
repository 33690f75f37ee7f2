"""Replicas follow the load: 1 -> 4 -> 1, by the p99 objective too, and 0 -> 1 -> 0.

A closed load of few, many, few connections; the timeline is what the service's own state file says.
Beside it stands what a service that answers everything would do: each request 200, also the first
one that comes when no replica runs and is held while one starts.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks.harness import Figure, scale
from benchmarks.load import drive
from benchmarks.served import arrow_body, json_body, plain_bundle, port_of, service
from raymill.serving.protocols.arrow import ARROW
from raymill.serving.state import ServiceStatus, read
from raymill.training.bundle import Bundle

MANY, MOST = 16, 4
_QUIET_S = 60.0  # the longest that replicas may take to go
_DELAYS = {"upscale_delay": "1s", "downscale_delay": "3s"}
Timeline = list[tuple[float, int, int]]  # seconds from the first load, replicas, wanted


def run() -> Figure:
    seconds = max(20.0, 40 * scale())
    with tempfile.TemporaryDirectory() as place:
        bundle = plain_bundle(Path(place), width=1024)
        up = {"min": 1, "max": MOST, **_DELAYS}
        details: dict[str, Any] = {
            "ongoing": _follow(bundle, Path(place) / "a", up | {"target_ongoing": 3}, seconds),
            "p99": _follow(bundle, Path(place) / "b", up | {"target_p99_ms": 20}, seconds),
            "zero": _from_zero(bundle, Path(place) / "c"),
        }
    for name, each in details.items():
        print(f"{name}: {each['asked']} asked, {each['lost']} lost")
        print(plotted(each["timeline"]))
    asked, lost = (sum(each[key] for each in details.values()) for key in ("asked", "lost"))
    shapes = {"ongoing": (1, MOST, 1), "p99": (1, MOST, 1), "zero": (0, 1, 0)}
    held = {name: _passes(details[name]["timeline"], shape) for name, shape in shapes.items()}
    return Figure(
        name="scale", unit="share answered", ours=1 - lost / asked, reference=1.0,
        reference_is="every request answered",
        goal="1 -> 4 -> 1 by load and by p99, 0 -> 1 -> 0, no request lost",
        holds=lost == 0 and all(held.values()), details={"followed": held, **details},
    )


def _follow(bundle: Bundle, home: Path, replicas: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Few connections, many, few."""
    with service(bundle, home, replicas=replicas, cpus_per_replica=0.2) as served:
        port, body, start = port_of(served), arrow_body(512), time.time()
        asked = lost = 0
        for connections, duration_s in ((1, 5.0), (MANY, seconds), (1, 5.0)):
            load = drive("127.0.0.1", port, body, connections=connections, duration_s=duration_s,
                         kind=ARROW.decode())
            asked, lost = asked + load.answered + load.failed, lost + load.failed
        return {"asked": asked, "lost": lost, "timeline": _until(home, served, start, 1)}


def _from_zero(bundle: Bundle, home: Path) -> dict[str, Any]:
    """Nobody asks, then five at once, then nobody."""
    with service(bundle, home, replicas={"min": 0, "max": 1, **_DELAYS},
                 cpus_per_replica=0.2) as served:
        start = time.time()
        _until(home, served, start, 0)
        answers: list[tuple[int, float]] = []

        def ask() -> None:
            then = time.perf_counter()
            response = httpx.post(f"{served.url}/predict", content=json_body(1), timeout=120,
                                  headers={"content-type": "application/json"})
            answers.append((response.status_code, time.perf_counter() - then))

        callers = [threading.Thread(target=ask) for _ in range(5)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        _until(home, served, start, 1)
        timeline = _until(home, served, start, 0)
        return {"asked": len(callers), "lost": sum(status != 200 for status, _ in answers),
                "held_s": max((seconds for _, seconds in answers), default=None),
                "timeline": timeline}


def _until(home: Path, served: ServiceStatus, start: float, replicas: int) -> Timeline:
    """The timeline, once there are `replicas`, or they have had their time."""
    end = time.monotonic() + _QUIET_S
    while True:
        status = read(home, served.name)
        assert status is not None
        if status.replicas == status.target == replicas or time.monotonic() > end:
            return [(round(moment - start, 1), running, wanted)
                    for moment, running, wanted in status.timeline]
        time.sleep(0.25)


def _passes(timeline: Timeline, shape: Sequence[int]) -> bool:
    """Whether the numbers of replicas go through those of `shape` in their order."""
    counts = iter(running for _, running, _ in timeline)
    return all(any(running == wanted for running in counts) for wanted in shape)


def plotted(timeline: Timeline) -> str:
    """A line a second: how many replicas ran."""
    lines, running = [], 0
    changes = list(timeline)
    first = int(min((moment for moment, _, _ in timeline), default=0))
    last = int(max((moment for moment, _, _ in timeline), default=0)) + 1
    for second in range(first, last + 1):
        while changes and changes[0][0] <= second:
            running = changes.pop(0)[1]
        lines.append(f"{second:>5} s {'█' * running:<8} {running}")
    return "\n".join(lines)
