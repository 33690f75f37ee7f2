"""A run on nodes that share no disk: all goes through the store."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyarrow import parquet
from ray._raylet import GcsClient

from raymill.cluster import up
from raymill.cluster.environment import MARK, applied, for_existing
from raymill.cluster.keeper import _RAY
from raymill.cluster.state import ClusterState
from raymill.pipeline import run
from raymill.spec import spec_from
from raymill.stores import store_at

from .conftest import payments

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Ray's own deprecations
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode != 0,
        reason="mount namespaces need root"),
]
# In a raylet's own view of the file system, the driver's folder is an empty one of its own.
HIDE = 'mount -t tmpfs none "$1" && mkdir "$1/tmp" && shift && exec "$@"'


@contextmanager
def node(name: str, hidden: Path, cluster: ClusterState) -> Iterator[None]:
    """A raylet of 2 CPUs that does not see what the driver writes."""
    changes = {**for_existing(None, cluster.address), MARK: cluster.mark,
               "TMPDIR": str(hidden / "tmp"), "RAY_ADDRESS": cluster.address}
    with applied(changes):
        process = subprocess.Popen([
            "unshare", "-m", "sh", "-c", HIDE, "sh", str(hidden), sys.executable, "-c", _RAY, "start",
            "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1", "--num-cpus=2",
            "--num-gpus=0", f"--node-name={name}", "--min-worker-port=0", "--max-worker-port=0",
            "--dashboard-agent-listen-port=0", f"--object-store-memory={100 * 2**20}",
            f"--address={cluster.address}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def address(s3: str, tmp_path: Path) -> Iterator[str]:
    """Of a cluster whose head has no CPUs, and whose two workers are apart."""
    home = tmp_path / "home"
    home.mkdir()
    found = up.up(home, workers=0)
    try:
        with node("one", tmp_path, found):
            _until_there(found.address, 2)  # two that start at once may take the same socket's name
            with node("two", tmp_path, found):
                _until_there(found.address, 3)
                yield found.address
    finally:
        up.down(home)


def _until_there(address: str, nodes: int) -> None:
    client, end = GcsClient(address=address), time.monotonic() + 120
    while sum(info.state == 0 for info in client.get_all_node_info(timeout=5).values()) < nodes:
        assert time.monotonic() < end, "a node did not join"
        time.sleep(0.2)


def test_a_search_and_a_training_of_two_nodes_need_no_shared_disk(
    address: str, s3: str, tmp_path: Path
) -> None:
    parquet.write_table(payments(300), tmp_path / "tx.parquet")
    store_at("s3://rows/input").put("tx.parquet", tmp_path / "tx.parquet")
    spec = spec_from({
        "name": "fraud",
        "data": {"source": "s3://rows/input/tx.parquet", "target": "is_fraud"},
        "model": {"family": "mlp"},
        "training": {"epochs": 2, "workers": 2, "cpus_per_worker": 2, "patience": None},
        "tuning": {"trials": 2, "concurrency": 2, "refit": "checkpoint",
                   "resources": {"cpu": 2}},
        "cluster": {"address": address, "store": "s3://rows/apart"}})
    with pytest.MonkeyPatch.context() as patch:
        (tmp_path / "driver").mkdir()
        patch.setattr(tempfile, "tempdir", str(tmp_path / "driver"))
        found = run(spec, base=tmp_path, home=tmp_path / "home")
    assert len(found.search.trials) == 2 and len(found.trained.history) == 2
    assert found.trained.resumes == []
    [model] = store_at("s3://rows/apart/models/fraud").folders()
    assert found.trained.digest.startswith(model)
    assert not (tmp_path / "home/cache/data").exists()
