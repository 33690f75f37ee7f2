"""Ray Serve as it comes: a deployment of two replicas behind Serve's own HTTP proxy."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.peers.network import NAMES, load, probabilities


@serve.deployment(num_replicas=2)
class Model:
    def __init__(self) -> None:
        self.network = load()

    async def __call__(self, request: Request) -> dict[str, Any]:
        if request.method == "GET":
            return {"ready": True}
        body = await request.json()
        rows = [[float(row[name]) for name in NAMES] for row in body["rows"]]
        return {"predictions": probabilities(self.network, rows)}


def main(port: int) -> None:
    ended = threading.Event()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
             logging_level="ERROR", _node_ip_address="127.0.0.1")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(Model.bind(), route_prefix="/")
    ended.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
