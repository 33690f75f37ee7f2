"""Rows a second in requests of 256 rows, as JSON and as Arrow, beside MLflow's scoring server.

28 features, MLP 28-256-256-1, two replicas where there are CPUs, the client on the same machine;
ours with every guard. The peer is what `mlflow models serve` runs: MLflow's own scoring app with
the network as a pyfunc, one uvicorn process, asked by `/invocations` with the rows as
`dataframe_split`. The goal: 60,000 rows/s in JSON and 300,000 in Arrow.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.harness import Figure, scale
from benchmarks.load import Load, drive
from benchmarks.peers import answering
from benchmarks.served import arrow_body, json_body, plain_bundle, port_of, service, split_body
from raymill.serving.protocols.arrow import ARROW

ROWS, CONNECTIONS = 256, 8
JSON_GOAL, ARROW_GOAL = 60_000, 300_000


def measure(port: int, body: bytes, path: str, kind: str = "application/json") -> Load:
    seconds = max(1.0, 15 * scale())
    for duration in (seconds / 3, seconds):  # the first warms up
        load = drive("127.0.0.1", port, body, connections=CONNECTIONS, duration_s=duration,
                     path=path, kind=kind)
    return load


def run() -> Figure:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        bundle = plain_bundle(folder)
        with answering("mlflow_app", "/ping") as port:
            peer = measure(port, split_body(ROWS), "/invocations")
        with service(bundle, folder / "home") as served:
            port = port_of(served)
            loads = {
                "json": measure(port, json_body(ROWS), "/predict"),
                "arrow": measure(port, arrow_body(ROWS), "/predict", ARROW.decode()),
                "mlflow's form": measure(port, split_body(ROWS), "/invocations"),
            }
    for name, load in {"mlflow": peer, **loads}.items():
        if load.failed or not load.answered:
            raise RuntimeError(f"requests failed: {name} {load}")
    rates = {name: ROWS * load.requests_per_s for name, load in loads.items()}
    return Figure(
        name="endpoint-rows", unit="rows/s", ours=rates["json"],
        reference=ROWS * peer.requests_per_s, reference_is="MLflow's scoring server",
        goal=f"JSON >= {JSON_GOAL:,}, Arrow >= {ARROW_GOAL:,} rows/s",
        holds=rates["json"] >= JSON_GOAL and rates["arrow"] >= ARROW_GOAL,
        details={"rows_a_request": ROWS, "connections": CONNECTIONS, "cpus": os.cpu_count(),
                 "rows_per_s": rates, "peer": asdict(peer),
                 "ours": {name: asdict(load) for name, load in loads.items()}},
    )
