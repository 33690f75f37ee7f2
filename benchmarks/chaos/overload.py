"""A service is asked for five times what it can do, and goes on doing what it can.

A wide network makes a request of 256 rows cost tens of milliseconds, so that the client on the
same machine can ask for far more than is answered. First its peak in a closed loop, then five times
that in an open loop. It must answer at nearly its peak, refuse the rest at once with 429 and
Retry-After, and keep those it takes within the SLO.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.harness import Survival, scale
from benchmarks.load import drive, post
from benchmarks.open_loop import drive_open
from benchmarks.served import arrow_body, plain_bundle, port_of, replicas_of, service
from raymill.serving.protocols.arrow import ARROW
from raymill.serving.state import ServiceStatus

SLO_S, HELD, TIMES = 2.0, 8, 5


def run() -> Survival:
    seconds = max(3.0, 60 * scale())
    with tempfile.TemporaryDirectory() as place:
        bundle = plain_bundle(Path(place), width=2048)
        limits = {"max_waiting": HELD, "max_batch_rows": 256, "deadline_ms": int(SLO_S * 1000)}
        with service(bundle, Path(place) / "home", **limits) as served:
            port, body = port_of(served), arrow_body(256)
            request = post("127.0.0.1", port, body, ARROW.decode())
            drive("127.0.0.1", port, body, connections=4, duration_s=2, kind=ARROW.decode())
            peak = drive("127.0.0.1", port, body, connections=8, duration_s=seconds / 4,
                         kind=ARROW.decode())
            before = _memory(served)
            load = drive_open(port, request, rate=TIMES * peak.requests_per_s, duration_s=seconds)
            after = _memory(served)
            calm = drive("127.0.0.1", port, body, connections=4, duration_s=3, kind=ARROW.decode())
    goodput = load.count(200) / max(seconds, max(load.due, default=0.0))
    held = (goodput >= 0.9 * peak.requests_per_s, load.p99_ms(200) <= 1000 * SLO_S,
            after <= 1.1 * before, calm.failed == 0)
    return Survival(
        name="overload", fault=f"{TIMES} times the peak rate for {seconds:g} s", injected=len(held),
        survived=sum(held), lost=len(load.statuses) - load.count(200, 429),
        goal="goodput >= 90 % of peak, accepted p99 in SLO, memory flat, calm after",
        details={"peak_requests_per_s": peak.requests_per_s, "goodput": goodput,
                 "goodput_of_peak": goodput / peak.requests_per_s,
                 "accepted_p99_ms": load.p99_ms(200), "shed_p99_ms": load.p99_ms(429),
                 "statuses": {str(s): load.count(s) for s in sorted(set(load.statuses))},
                 "memory_mb": [round(before / 2**20), round(after / 2**20)],
                 "lost": load.lost(200, 429), "slo_ms": 1000 * SLO_S},
    )


def _memory(served: ServiceStatus) -> int:
    return sum(process.memory_info().rss for process in replicas_of(served))
