"""Requests a second of the served model, beside the servers that others would take.

One-row JSON requests over 32 keep-alive connections, then over one; 28 features, an MLP
28-256-256-1, the client on the same machine. Ours is the whole way: HAProxy, Ray Serve, contract,
transform, deadline, limits, metrics, two replicas where there are CPUs. The peers have the network
and nothing else (`benchmarks/peers/`): one FastAPI + uvicorn process, Ray Serve as it comes with two
replicas, LitServe with two workers, and what `mlflow models serve` runs.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from benchmarks.harness import Figure, scale
from benchmarks.load import Load, drive
from benchmarks.peers import answering
from benchmarks.served import json_body, plain_bundle, port_of, service, split_body
from raymill.errors import UsageError

CONNECTIONS, P50_MS = 32, 1.0
FASTAPI, SERVE, LITSERVE, MLFLOW = "FastAPI + uvicorn", "Ray Serve", "LitServe", "MLflow"
GOALS = {FASTAPI: 1.0, SERVE: 10.0, LITSERVE: 3.0}
PEERS = {  # the module, the path that answers once it is up, the path of predictions
    FASTAPI: ("fastapi_app", "/docs", "/predict"),
    SERVE: ("serve_app", "/", "/predict"),
    LITSERVE: ("litserve_app", "/health", "/predict"),
    MLFLOW: ("mlflow_app", "/ping", "/invocations"),
}


@contextmanager
def ours(folder: Path) -> Iterator[int]:
    with service(plain_bundle(folder), folder / "home") as served:
        yield port_of(served)


def measure(port: int, body: bytes, path: str) -> dict[str, Load]:
    """Loads over many connections and over one, after a warm-up.

    Raises:
        RuntimeError: a request was not answered 200.
    """
    seconds = max(0.5, 10 * scale())
    drive("127.0.0.1", port, body, connections=CONNECTIONS, duration_s=seconds / 2, path=path)
    loads = {
        "many": drive("127.0.0.1", port, body, connections=CONNECTIONS, duration_s=seconds, path=path),
        "one": drive("127.0.0.1", port, body, connections=1, duration_s=seconds / 2, path=path),
    }
    if broken := [load for load in loads.values() if load.failed or not load.answered]:
        raise RuntimeError(f"requests of {path} failed: {broken}")
    return loads


def run() -> Figure:
    if importlib.util.find_spec("litserve") is None:
        raise UsageError("the figure endpoint needs LitServe, which is not installed",
                         cure="Run `make bench NAME=endpoint`, or pip install 'raymill[bench]'.")
    with tempfile.TemporaryDirectory() as place, ours(Path(place)) as port:
        own = measure(port, json_body(1), "/predict")
    peers = {}
    for name, (module, ready, path) in PEERS.items():
        body = split_body(1) if name == MLFLOW else json_body(1)
        with answering(module, ready) as port:
            peers[name] = measure(port, body, path)
    rate = own["many"].requests_per_s
    ratios = {name: rate / loads["many"].requests_per_s for name, loads in peers.items()}
    return Figure(
        name="endpoint", unit="requests/s", ours=rate,
        reference=peers[FASTAPI]["many"].requests_per_s, reference_is="one FastAPI + uvicorn process",
        goal=", ".join(f">= {goal:g} of {name}" for name, goal in GOALS.items())
        + f", p50 <= {P50_MS:g} ms at one connection",
        holds=all(ratios[name] >= goal for name, goal in GOALS.items())
        and own["one"].p50_ms <= P50_MS,
        details={"connections": CONNECTIONS, "cpus": os.cpu_count(), "ratios": ratios,
                 "ours": {name: asdict(load) for name, load in own.items()},
                 "peers": json.loads(json.dumps(peers, default=asdict))},
    )
