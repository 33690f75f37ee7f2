"""Five kinds of bad model are to become the champion under load; each is refused with its cause.

Its constructor raises, it answers other classes, it answers NaN, it hangs, a byte of its weights was
changed after it was registered. One replica, one-row JSON requests in an open loop at a third of
what it does. The champion must answer all of it meanwhile, at its full rate after it, and stay the
registry's champion; the verdict must come within 90 s (the process that hangs gets 60).
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.changing import NAME, Stage, as_version, said, stage, variation
from benchmarks.harness import Survival, scale
from benchmarks.load import drive, post
from benchmarks.open_loop import Open, drive_open
from benchmarks.served import json_body, port_of
from raymill.errors import RaymillError
from raymill.serving import change
from raymill.training.bundle import WEIGHTS

_VERDICT_S = 90.0
KINDS: dict[str, tuple[Callable[[Stage, Path], Any], str]] = {
    "constructor": (lambda on, place: as_version(
        variation(on.first, place, factory="raises"), 2), "can't be built"),
    "schema": (lambda on, place: as_version(
        variation(on.first, place, classes=["nay", "yea"]), 3), "classes are others"),
    "nan": (lambda on, place: as_version(
        variation(on.first, place, float("nan")), 4), "finite"),
    "hang": (lambda on, place: as_version(
        variation(on.first, place, factory="hangs"), 5), "within"),
    "hash": (lambda on, place: _flipped(on, place), WEIGHTS),
}


def run() -> Survival:
    verdicts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, stage(
        Path(folder), replicas={"min": 1, "max": 1}
    ) as on:
        port, body = port_of(on.served), json_body(1)
        length = max(2.0, 5 * scale())
        peak = drive("127.0.0.1", port, body, connections=32, duration_s=length)
        rate = peak.requests_per_s / 3

        during = Open()

        async def offer() -> None:
            for kind in KINDS:
                during.mark(kind)
                verdicts[kind] = await asyncio.to_thread(_verdict, on, kind, Path(folder) / kind)

        drive_open(port, post("127.0.0.1", port, body), rate=rate, meanwhile=offer, into=during)
        after = drive("127.0.0.1", port, body, connections=32, duration_s=length)
        champion = on.registry.resolve(NAME).version
    lost = len(during.statuses) - during.count(200) + after.failed
    survived = sum(v["refused"] and v["seconds"] <= _VERDICT_S for v in verdicts.values())
    return Survival(
        name="bad-model", fault="a model that can't serve is to become the champion",
        injected=len(KINDS), survived=survived if champion == 1 else 0, lost=lost,
        goal="refused with its cause within 90 s; 0 lost",
        details={"verdicts": verdicts, "rate": rate, "requests": len(during.statuses),
                 "lost": during.lost(), "slowest": during.slowest(), "lost_after": after.failed,
                 "p99_ms": during.p99_ms(200), "champion": champion,
                 "requests_per_s": [peak.requests_per_s, after.requests_per_s]},
    )


def _verdict(on: Stage, kind: str, place: Path) -> dict[str, Any]:
    make, expected = KINDS[kind]
    version, start = make(on, place), time.monotonic()
    try:
        change.promote(on.served, version, actor="bench", reason="", said=said)
        cause = ""
    except RaymillError as error:
        cause = str(error)
    said(f"{kind}: {cause}")
    return {"refused": expected in cause, "cause": cause[:200],
            "seconds": round(time.monotonic() - start, 1)}


def _flipped(on: Stage, place: Path) -> Any:
    shutil.copytree(on.first.path, place)
    data = bytearray((place / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (place / WEIGHTS).write_bytes(data)
    version = as_version(on.first, 6)
    return type(version)(version.name, 6, version.digest, place)
