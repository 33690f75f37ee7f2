"""The 99th percentile of a service whose answers a shadow scores again, beside itself alone.

The same two replicas, one-row JSON requests in an open loop at half of what they do; turns without
and with a shadow of an equal network, and the median turn of each. Copies that found no room are
counted, and the copies that were scored must be most of them.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.changing import NAME, said, stage, variation
from benchmarks.harness import Figure, scale, sized, spread
from benchmarks.load import drive, post
from benchmarks.open_loop import drive_open
from benchmarks.served import json_body, port_of, two
from raymill.serving import change
from raymill.serving.rollout_state import read_rollout

_FLUSH_S = 2.0  # until the last sums of the replicas are in the status


def run() -> Figure:
    turns, seconds = sized(5, 2), max(2.0, 10 * scale())
    alone, shadowed, counts = list[float](), list[float](), list[dict[str, Any]]()
    how = change.terms(canary=None, shadow=True, ab=None, share=None, bake_s=0.0, least=1, drift=0.25)
    with tempfile.TemporaryDirectory() as place, stage(Path(place), replicas=two()) as on:
        port, body = port_of(on.served), json_body(1)
        number = on.register(variation(on.first, Path(place) / "shadow", 1.0001))
        request = post("127.0.0.1", port, body)
        drive("127.0.0.1", port, body, connections=32, duration_s=seconds / 2)
        peak = drive("127.0.0.1", port, body, connections=32, duration_s=seconds)
        for _ in range(turns):
            load = drive_open(port, request, rate=peak.requests_per_s / 2, duration_s=seconds)
            alone.append(load.p99_ms(200))
            change.begin(on.served, on.version(number), how, actor="bench", said=said)
            time.sleep(1)
            load = drive_open(port, request, rate=peak.requests_per_s / 2, duration_s=seconds)
            shadowed.append(load.p99_ms(200))
            time.sleep(_FLUSH_S)
            status = read_rollout(on.registry.home.path, NAME)
            assert status is not None and load.count(200) == len(load.statuses)
            counts.append(status.counts.get(str(number), {}))
            change.abort(on.served, "bench", "the turn is over", said)
    ours, reference = spread(shadowed)["median"], spread(alone)["median"]
    copies = sum(each.get("copies", 0) for each in counts)
    dropped = sum(each.get("dropped", 0) for each in counts)
    share = copies / (copies + dropped) if copies else 0.0
    return Figure(
        name="shadow", unit="ms (p99)", ours=ours, reference=reference,
        reference_is="the same service without a shadow", goal="ratio < 1.1, most copies scored",
        holds=ours < 1.1 * reference and share > 0.5,
        details={"rate": peak.requests_per_s / 2, "alone_ms": spread(alone),
                 "shadowed_ms": spread(shadowed), "turns": {"alone": alone, "shadowed": shadowed},
                 "copies": copies, "dropped": dropped, "scored_share": share},
    )
