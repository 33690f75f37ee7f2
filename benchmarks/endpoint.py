"""Requests a second of the served model, beside one FastAPI + uvicorn process.

One-row JSON requests over 32 keep-alive connections, the client on the same machine; the same
bundle and predictor behind both. Ours is the whole way: HAProxy, Ray Serve, contract, deadline,
limits, metrics, two replicas where there are CPUs. The peer parses the JSON with FastAPI, types the
row by the contract, predicts and answers: no limits, no deadline, one process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.harness import Figure, scale
from benchmarks.load import Load, drive
from benchmarks.prepared import fraud, small_bundle
from raymill.cluster.local import ray_session
from raymill.cluster.spec import ClusterSpec
from raymill.events import ignore
from raymill.ports import free_port
from raymill.serving.service import start_detached, stop
from raymill.serving.spec import ServingSpec
from raymill.training.bundle import Bundle

CONNECTIONS = 32

PEER = """
import sys
import pyarrow as pa
import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from raymill.data.conform import conform
from raymill.training.bundle import Bundle
from raymill.training.predictor import Predictor

torch.set_num_threads(1)
bundle = Bundle.open(sys.argv[1])
predictor = Predictor(bundle)
app = FastAPI()


class Request(BaseModel):
    rows: list[dict]


@app.post("/predict")
async def predict(request: Request):
    table = conform(pa.Table.from_pylist(request.rows), bundle.contract).table
    return {"predictions": predictor.predict(table).to_pylist()}


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error", access_log=False)
"""


@dataclass(frozen=True)
class Version:
    """What a service asks of a registered version."""

    name: str
    version: int
    digest: str
    bundle_path: Path


def body_of(prepared_path: Path, bundle: Bundle) -> bytes:
    """One row of the test split as a request."""
    part = min((prepared_path / "test").glob("*.parquet"))
    row = pq.read_table(part).slice(0, 1).select(bundle.contract.features).to_pylist()[0]
    return json.dumps({"rows": [row]}, default=lambda value: value.isoformat()).encode()


@contextmanager
def fastapi(bundle: Path) -> Iterator[int]:
    """The peer, answering; its port."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", PEER, str(bundle), str(port)], env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/docs", timeout=1).close()
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def ours(bundle: Bundle, home: Path) -> Iterator[int]:
    """The service, answering; its port."""
    spec = ServingSpec.model_validate({"port": free_port(), "replicas": {
        "min": min(2, os.cpu_count() or 1), "max": min(2, os.cpu_count() or 1)}})
    version = Version("bench", 1, bundle.digest, bundle.path)
    start_detached(version, spec, home, ignore)
    try:
        yield spec.port
    finally:
        stop(home, "bench")


def measure(port: int, body: bytes) -> dict[str, Load]:
    """Loads by name; each after a warm-up."""
    seconds = max(0.5, 10 * scale())
    drive("127.0.0.1", port, body, connections=CONNECTIONS, duration_s=seconds / 2)
    return {
        "many": drive("127.0.0.1", port, body, connections=CONNECTIONS, duration_s=seconds),
        "one": drive("127.0.0.1", port, body, connections=1, duration_s=seconds / 2),
    }


def run() -> Figure:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        home = folder / "home"
        home.mkdir(mode=0o700)
        with ray_session(ClusterSpec()):
            prepared = fraud(folder, 6000)
            bundle = small_bundle(folder, prepared)
        body = body_of(prepared.path, bundle)
        with fastapi(bundle.path) as port:
            peer = measure(port, body)
        with ours(bundle, home) as port:
            own = measure(port, body)
    if any(load.failed or not load.answered for load in (*peer.values(), *own.values())):
        raise RuntimeError(f"requests failed: ours {own}, the peer {peer}")
    ratio = own["many"].requests_per_s / peer["many"].requests_per_s
    return Figure(
        name="endpoint", unit="requests/s", ours=own["many"].requests_per_s,
        reference=peer["many"].requests_per_s, reference_is="one FastAPI + uvicorn process",
        goal="ratio >= 0.8", holds=ratio >= 0.8,
        details={"connections": CONNECTIONS, "cpus": os.cpu_count(),
                 "ours": {name: asdict(load) for name, load in own.items()},
                 "peer": {name: asdict(load) for name, load in peer.items()}},
    )
