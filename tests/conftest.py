"""Fixtures shared by the rooms' tests."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before Ray is imported: a test's Ray is as private and as quiet as a run's.
from raymill.cluster.environment import DEFAULTS, ensure_token

os.environ |= {key: value for key, value in DEFAULTS.items() if key not in os.environ}


TESTS = Path(__file__).parent
LONGEST = (  # modules first, so that the short ones fill what is left at the end
    "road/test_road.py", "road/test_store.py", "road/test_apart.py", "training/test_distributed.py",
    "tuning/test_search.py", "serving/test_service.py", "serving/test_places.py",
    "tuning/test_kill.py", "tuning/test_resources.py",
    "road/test_text.py", "serving/test_conductor.py", "cluster/test_local.py",
    "serving/test_rollout_service.py", "cluster/test_jobs.py", "training/test_kills.py",
    "serving/test_reach.py", "training/test_parallel.py", "serving/test_score.py",
    "data/test_prepare.py", "tracking/test_store.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` shares modules out to processes in this order."""
    places = {TESTS / module: place for place, module in enumerate(LONGEST)}
    assert all(path.exists() for path in places), "a module of LONGEST is gone"
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A database server of the module's own, on a socket in a folder that another user may enter."""
    if shutil.which("initdb") is None:
        pytest.skip("there is no Postgres here")
    folder = Path(tempfile.mkdtemp())
    plain = {"user": 65534, "group": 65534} if os.getuid() == 0 else {}
    if plain:  # Postgres refuses to run as root
        os.chown(folder, 65534, 65534)
    data = folder / "data"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    made = subprocess.run(["initdb", "-D", data, "-U", "me", "-A", "trust"], check=False, **quiet,
                          **plain)
    if made.returncode:
        pytest.skip("Postgres can't be started here")
    server = subprocess.Popen(["postgres", "-D", data, "-k", folder, "-c", "listen_addresses="],
                              **quiet, **plain)
    try:
        ready = ["psql", "-h", folder, "-U", "me", "-d", "postgres", "-c", "select 1"]
        for _ in range(100):
            if subprocess.run(ready, check=False, **quiet).returncode == 0:
                break
            time.sleep(0.1)
        yield f"postgresql://me@/postgres?host={folder}"
    finally:
        server.send_signal(signal.SIGINT)  # without waiting for open connections
        server.wait(30)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 server on loopback with the bucket `rows`: its URL. Processes that are started later
    know it too, so a Ray must be started after it."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": url,
        }.items():
            patch.setenv(name, value)
        import boto3

        boto3.client("s3", endpoint_url=url).create_bucket(Bucket="rows")
        yield url
    server.stop()


@pytest.fixture(scope="module")
def ray_local() -> Iterator[None]:
    """A Ray instance of this module's own, with 4 CPUs, whatever the machine has."""
    from raymill.cluster.local import ray_session
    from raymill.cluster.spec import ClusterSpec

    ensure_token()
    with ray_session(ClusterSpec(cpus=4)):
        yield
