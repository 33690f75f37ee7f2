"""A driver for test_local.py: starts a session, reports as JSON, and waits to be ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from raymill.cluster.local import ray_session
from raymill.cluster.spec import ClusterSpec


def main(project: str) -> None:
    with ray_session(ClusterSpec(cpus=2), Path(project)) as capacity:
        import ray

        @ray.remote
        def in_worker() -> tuple[int, str]:
            import users_module

            subprocess.Popen(["sleep", "600"], start_new_session=True)
            return users_module.ANSWER, os.environ["RAY_ADDRESS"]

        answer, address = ray.get(in_worker.remote())
        state = {
            "mark": os.environ["RAYMILL_SESSION"], "folder": os.environ["RAY_TMPDIR"],
            "address": capacity.address, "cpus": capacity.cpus, "answer": answer,
            "worker_address": address,
        }
        print(json.dumps(state), flush=True)
        time.sleep(600)


if __name__ == "__main__":
    # A shell that starts it in the background lets it ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        sys.exit(130)
