"""Canaries under load: worse models go back by themselves, an equal one becomes the champion.

Worse is a model that answers otherwise, one that raises for some rows, and one that takes 0.3 s more
a pass. The equal one goes by the key of a header, and each user who has had its answer must go on
having it: as the share grows a key never returns. Open loop, one-row JSON requests of many rows and
users. Survived is a rollout that ended as it should; lost are requests of the equal model's rollout,
and of the champion after each, that were not answered 200.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from benchmarks.changing import NAME, Stage, said, stage, variation
from benchmarks.harness import Survival, scale
from benchmarks.load import post
from benchmarks.open_loop import Open, drive_open
from benchmarks.served import port_of, rows_of, two
from raymill.serving import change
from raymill.serving.rollout_state import ENDED, RolloutStatus, read_rollout

USERS, ROWS, RATE = 40, 200, 150.0
WORSE = {"drift": {"shift": 0.05}, "errors": {"factory": "fails"}, "latency": {"factory": "slow"}}
_LIMIT_S = 120.0


def run() -> Survival:
    bake = max(2.0, 8 * scale())
    ended: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, stage(Path(folder), replicas=two()) as on:
        port, requests = port_of(on.served), _requests(port_of(on.served))
        lost, why = 0, dict[str, Any]()
        for kind, words in WORSE.items():
            number = on.register(variation(on.first, Path(folder) / kind, **words))  # type: ignore[arg-type]
            # Its drift is another matter than its errors and its latency.
            how = _terms(canary=0.1, bake_s=60.0, drift=0.25 if kind == "drift" else 100.0)
            _, ended[kind] = _rolled(on, number, how, "", requests, [])
            calm = drive_open(port, requests, rate=RATE, duration_s=2.0)
            lost += len(calm.statuses) - calm.count(200)
            why[kind] = calm.lost()
        went: list[dict[str, int]] = []
        number = on.register(variation(on.first, Path(folder) / "equal", 1.0001))
        how = _terms(canary=0.1, bake_s=bake, least=50, ab="X-User")
        load, ended["equal"] = _rolled(on, number, how, "X-User", requests, went)
        lost += len(load.statuses) - load.count(200)
        why["equal"] = load.lost()
        champion = on.registry.resolve(NAME).version
    kept = _kept(went)
    survived = sum(
        ended[kind]["state"] == "rolled back" and ended[kind]["why"].startswith(kind)
        for kind in WORSE)
    survived += ended["equal"]["state"] == "completed" and champion == number and kept
    return Survival(
        name="canary", fault="a canary of a worse (3 kinds) or an equal model under load",
        injected=len(WORSE) + 1, survived=survived, lost=lost,
        goal="worse ones go back by themselves, the equal one completes, keys stay",
        details={"ended": ended, "rate": RATE, "keys_stayed": kept, "looks": len(went),
                 "lost": why,
                 "requests": len(load.statuses), "p99_ms": load.p99_ms(200)},
    )


def _terms(**words: Any) -> change.Terms:
    common: dict[str, Any] = {"canary": None, "shadow": False, "ab": None, "share": None,
                              "least": 100, "drift": 0.25}
    return change.terms(**common | words)


def _requests(port: int) -> list[bytes]:
    rng, found = random.Random(0), []
    for row in rows_of(ROWS).to_pylist():
        body = json.dumps({"rows": [row]}).encode()
        user = rng.randrange(10_000)
        found.append(post("127.0.0.1", port, body, more=f"X-User: {user}\r\n"))
    return found


def _rolled(
    on: Stage, number: int, how: change.Terms, key: str, requests: list[bytes],
    went: list[dict[str, int]],
) -> tuple[Open, dict[str, Any]]:
    """A rollout until it has ended; by user, which version answered, look after look."""
    start, shares = time.monotonic(), list[float]()

    async def lead() -> None:
        await asyncio.to_thread(change.begin, on.served, on.version(number), how, key=key,
                                actor="bench", said=said)
        async with httpx.AsyncClient() as client:
            while time.monotonic() - start < _LIMIT_S:
                status = _status(on)
                shares.append(status.share)
                if key:
                    went.append(await _answers(client, on))
                if status.state in ENDED:
                    return
                await asyncio.sleep(0.25)

    load = drive_open(port_of(on.served), requests, rate=RATE, meanwhile=lead)
    status = _status(on)
    if status.state not in ENDED:
        change.abort(on.served, "bench", "it did not end by itself", said)
    said(f"{status.state}: {status.why}")
    return load, {"state": status.state, "why": status.why, "shares": sorted(set(shares)),
                  "seconds": round(time.monotonic() - start, 1),
                  "statuses": {str(s): load.count(s) for s in sorted(set(load.statuses))}}


async def _answers(client: httpx.AsyncClient, on: Stage) -> dict[str, int]:
    body, kind = json.dumps({"rows": rows_of(1).to_pylist()}), {"content-type": "application/json"}
    found = {}
    for user in map(str, range(USERS)):
        answer = await client.post(on.served.url + "/predict", content=body,
                                   headers={**kind, "X-User": user})
        found[user] = int(answer.json()["version"])
    return found


def _status(on: Stage) -> RolloutStatus:
    status = read_rollout(on.registry.home.path, NAME)
    assert status is not None
    return status


def _kept(went: list[dict[str, int]]) -> bool:
    """No user went back to the old version after an answer of the new one."""
    return bool(went) and all(after[user] >= before[user]
                              for before, after in pairwise(went) for user in before)
