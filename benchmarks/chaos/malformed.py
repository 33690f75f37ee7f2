"""Malformed requests of every kind, by raw sockets: each is refused, none hangs, nothing grows.

Bodies cut, bent and stuffed by a seeded generator (JSON bombs, NaN, huge numbers, wrong shapes,
other types, invalid UTF-8, broken Arrow streams, v2 and MLflow bodies of wrong shape), heads with
bad lengths, bad chunks, both lengths at once, and 500 connections that send a byte now and then
(slow-loris) meanwhile. Lost counts answers of 5xx, requests without any answer, and slow
connections that were not cut off.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Survival, sized
from benchmarks.load import drive, post
from benchmarks.served import arrow_body, json_body, plain_bundle, port_of, replicas_of, service
from raymill.serving.protocols.arrow import ARROW
from raymill.serving.state import ServiceStatus

CLIENTS, HANG_S, SLOW_S = 8, 30.0, 45.0
_NAMED = 10
JSON = "application/json"
_PIECES = [
    b"NaN", b"Infinity", b"-1e999", b"9" * 400, b"null", b"true", b'"a"', b"[]", b"{}", b"\xff\xfe",
    b'"\\ud800"', b"[" * 3000, b'{"a":' * 3000, b",", b"}", b'"' + b"x" * 3000 + b'"', b"\x00", b"",
]
_WRONG = [b"null", b"[]", b"3", b'""', b"{}", b'{"rows":[]}', b'{"rows":[[]]}', b'{"rows":{}}',
          b'{"rows":[{}],"more":1}', b'{"rows":[{"x0":1}]}', b'{"inputs":[]}', b"[[[[", b"\x1f\x8b\x08"]


def bent(rng: random.Random, body: bytes) -> bytes:
    """`body`, wrong somewhere: cut, a piece put in, bytes changed, or another document."""
    kind, place = rng.randrange(4), rng.randrange(max(1, len(body)))
    if kind == 0:
        return body[:place]
    if kind == 1:
        end = place + rng.randrange(12)
        return body[:place] + rng.choice(_PIECES) + body[end:]
    if kind == 2:
        changed = bytearray(body)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)
    return rng.choice(_WRONG)


def headed(rng: random.Random) -> bytes:
    """A request whose head is wrong."""
    body = b'{"rows":[]}'
    start = b"POST /predict HTTP/1.1\r\nHost: e\r\nContent-Type: application/json\r\n"
    chunked = b"Transfer-Encoding: chunked\r\n"
    return rng.choice([
        start + b"Content-Length: -1\r\n\r\n" + body, start + b"Content-Length: 1e3\r\n\r\n" + body,
        start + b"Content-Length: 11\r\nContent-Length: 12\r\n\r\n" + body,
        start + b"Content-Length: 11\r\n" + chunked + b"\r\n0\r\n\r\n",
        start + chunked + b"\r\nzz\r\nabc\r\n0\r\n\r\n", start + chunked + b"\r\n-5\r\nabc\r\n0\r\n\r\n",
        start + chunked + b"\r\nffffffffffffffff\r\nabc\r\n", start + b"Content-Length: 99999999999\r\n\r\n",
        start + b"X: " + b"a" * 100_000 + b"\r\n\r\n", start + b"X Y: 1\r\n\r\n", start + b"X:\x00\r\n\r\n",
        b"GET\r\n\r\n", b"POST /predict\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /predict HTTP/9.9\r\nHost: e\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 50,
        b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: e\r\n\r\n", b"\x00" * 100 + b"\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: e\r\n\r\n", b"TRACE / HTTP/1.1\r\nHost: e\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: e\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\nHost: e\r\n\r\n",
    ])


def request(rng: random.Random, bodies: list[tuple[str, str, bytes]]) -> bytes:
    if rng.random() < 0.1:
        return headed(rng)
    path, kind, body = rng.choice(bodies)
    if rng.random() < 0.05:
        kind = rng.choice(["text/plain", "", "application/xml", "multipart/form-data", ARROW.decode()])
    return post("e", 1, bent(rng, body), kind, path)


def good_bodies() -> list[tuple[str, str, bytes]]:
    rows = json.loads(json_body(2))["rows"]
    inputs = [{"name": name, "datatype": "FP64", "shape": [2], "data": [row[name] for row in rows]}
              for name in rows[0]]
    header = ",".join(rows[0])
    lines = "\n".join(",".join(map(str, row.values())) for row in rows)
    return [
        ("/predict", JSON, json_body(2)), ("/predict", ARROW.decode(), arrow_body(2)),
        ("/v2/models/bench/infer", JSON, json.dumps({"inputs": inputs}).encode()),
        ("/invocations", JSON, json.dumps({"dataframe_records": rows}).encode()),
        ("/invocations", "text/csv", f"{header}\n{lines}\n".encode()),
    ]


class Seen:
    """Counts of what came back, by status; `hung`: nothing within 30 s."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.broken: list[dict[str, str]] = []  # the first requests that were answered with 5xx

    async def ask(self, port: int, data: bytes) -> None:
        """One request on a connection of its own. Of a head of unknown length the end is told, as a
        client does that gives up; of the others it is not: HAProxy would answer 400 by itself."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(data)
            if b"Content-Length: %d\r\n" % len(data.partition(b"\r\n\r\n")[2]) not in data:
                writer.write_eof()
            head = await asyncio.wait_for(reader.readuntil(b"\r\n"), HANG_S)
            status = head.split(b" ", 2)[1].decode("latin-1")
            self.statuses[status] += 1
            if status.startswith("5") and len(self.broken) < _NAMED:
                rest = await asyncio.wait_for(reader.read(1000), HANG_S)
                self.broken.append({"asked": repr(data[:300]), "bytes": str(len(data)),
                                    "answer": repr(head + rest)})
        except TimeoutError:
            self.statuses["hung"] += 1
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            self.statuses["closed"] += 1
        finally:
            writer.close()


async def _slow(port: int, cut: list[bool]) -> None:
    """Half a head, then a byte every few seconds, until the other side has had enough."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"POST /predict HTTP/1.1\r\nHost: e\r\n")
        async with asyncio.timeout(SLOW_S):
            while not reader.at_eof():
                writer.write(b"X")
                await writer.drain()
                try:
                    await asyncio.wait_for(reader.read(1000), 3)
                except TimeoutError:
                    continue
        cut.append(True)
    except TimeoutError:
        cut.append(False)
    except OSError:
        cut.append(True)
    finally:
        writer.close()


async def _attack(port: int, count: int, slow: int) -> tuple[Seen, list[bool]]:
    seen, cut, bodies = Seen(), list[bool](), good_bodies()

    async def client(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(count // CLIENTS):
            await seen.ask(port, request(rng, bodies))

    loris = [asyncio.create_task(_slow(port, cut)) for _ in range(slow)]
    await asyncio.gather(*(client(seed) for seed in range(CLIENTS)))
    await asyncio.gather(*loris)
    return seen, cut


def run() -> Survival:
    count, slow = sized(100_000, 800), sized(500, 20)
    with tempfile.TemporaryDirectory() as place:
        with service(plain_bundle(Path(place)), Path(place) / "home") as served:
            port = port_of(served)
            attack: Callable[[int, int], tuple[Seen, list[bool]]] = (
                lambda count, slow: asyncio.run(_attack(port, count, slow)))
            attack(max(400, count // 20), 0)  # so that what is made once is made
            before = _memory(served)
            seen, cut = attack(count, slow)
            after = _memory(served)
            calm = drive("127.0.0.1", port, json_body(1), connections=4, duration_s=2)
    bad = sum(n for status, n in seen.statuses.items() if status.startswith("5")) + (
        seen.statuses["hung"] + cut.count(False) + calm.failed)
    total = sum(seen.statuses.values()) + len(cut)
    return Survival(
        name="malformed", fault="malformed requests and slow connections", injected=total,
        survived=total if after <= 1.1 * before + 20 * 2**20 else 0, lost=bad,
        goal="0 of 5xx, 0 hangs, memory flat, slow ones cut off",
        details={"statuses": dict(seen.statuses), "broken": seen.broken,
                 "slow": len(cut), "cut_off": cut.count(True),
                 "memory_mb": [round(before / 2**20), round(after / 2**20)]},
    )


def _memory(served: ServiceStatus) -> int:
    return sum(process.memory_info().rss for process in replicas_of(served))
