"""The process that holds a cluster of several raylets on this machine, until SIGTERM.

`python -m raymill.cluster.keeper ORDER`: ORDER is a JSON file made by `up`. Each raylet is a child
`ray start --block`; a worker that is lost is told in the state file and the others go on, but
without its head a cluster is over. A reaper ends what is left, also when this process is killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

from raymill.errors import RaymillError
from raymill.ports import free_port

from .environment import ensure_token, for_new
from .local import reaped
from .probe import GuardState, guard, guard_http
from .state import ClusterState, Node, write

ATTEMPTS = 3  # a busy machine may not give Ray's agent the time that Ray allows
NODE_S, POLL_S, DRAIN_S = 90.0, 0.3, 25.0
JOB_STOP_S = "30"  # what a stopped job has to mark its run and to end its actors
# `ray`, but that a second raylet may join on loopback: the switch that makes Ray take 127.0.0.1
# for the node's address (see environment.py) is of systems for which it refuses clusters.
_RAY = """
import sys
from ray._private import ray_constants, services
from ray.scripts.scripts import main
ray_constants.ENABLE_RAY_CLUSTER = True
services.get_node_ip_address = lambda address=None: "127.0.0.1"
sys.exit(main())
"""


@dataclass(frozen=True)
class Order:
    """What is to be kept: the home, the private folder, the mark, and the workers."""

    home: str
    folder: str
    mark: str
    head_cpus: int
    workers: list[Node]
    object_store_mb: int

    def write(self) -> Path:
        path = Path(self.folder) / "order.json"
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> Order:
        data = json.loads(path.read_text(encoding="utf-8"))
        return cls(**data | {"workers": [Node(**node) for node in data["workers"]]})


def raylet(node: Node, object_store_mb: int) -> list[str]:
    """The command of a node, without `--head` or `--address=`."""
    return [sys.executable, "-c", _RAY, "start", "--block", "--disable-usage-stats",
            "--node-ip-address=127.0.0.1", f"--num-cpus={node.cpus}", f"--num-gpus={node.gpus}",
            f"--node-name={node.name}", "--min-worker-port=0", "--max-worker-port=0",
            "--dashboard-agent-listen-port=0",
            f"--object-store-memory={object_store_mb * 2**20}"]


class Keeper:
    """Starts the raylets, watches them, ends them."""

    def __init__(self, order: Order, stop: threading.Event) -> None:
        self.order = order
        self.stop = stop
        self.home = Path(order.home)
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        created = psutil.Process().create_time()
        self.state = ClusterState(
            address="", dashboard="", pid=os.getpid(), created=created, folder=order.folder,
            mark=order.mark, since=time.time())

    def run(self) -> None:
        """Until SIGTERM, or until the head is lost.

        Raises:
            RaymillError: the cluster did not start, or its head was lost.
        """
        try:
            self._start()
            while not self.stop.wait(POLL_S):
                self._look()
        finally:
            self._end()

    def say(self, state: ClusterState) -> None:
        self.state = state
        write(self.home, state)

    def _start(self) -> None:
        """The head, then one worker after the other, each tried again where Ray gave it up."""
        self._tried(self._start_head)
        for node in self.order.workers:
            if not self.stop.is_set():
                self._tried(partial(self._start_worker, node))
        self.say(self.state.but(phase="ready"))

    def _tried(self, start: Callable[[], None]) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return start()
            except RaymillError:
                if attempt == ATTEMPTS:
                    raise

    def _start_head(self) -> None:
        port, dashboard = free_port(), free_port()
        os.environ.update(for_new(None, self.order.mark, Path(self.order.folder), port))
        os.environ["RAY_JOB_STOP_WAIT_TIME_S"] = JOB_STOP_S
        os.environ["PATH"] = os.pathsep.join(  # a job's `python` is this one
            [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        ensure_token()
        address = f"127.0.0.1:{port}"
        self.say(self.state.but(address=address, dashboard=f"http://127.0.0.1:{dashboard}"))
        self._launch(Node(name="head", cpus=self.order.head_cpus, gpus=0),
                     "--head", f"--port={port}", "--include-dashboard=true",
                     "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
                     f"--temp-dir={self.order.folder}")
        self._until("head", lambda: guard(address) is not GuardState.SILENT
                    and self._alive_nodes() == 1
                    and guard_http(self.state.dashboard) is not GuardState.SILENT)
        if guard(address) is GuardState.OPEN:
            raise RaymillError("a cluster must ask for its token, but this one answers without",
                               cure="Is RAY_AUTH_MODE set to something else?")

    def _start_worker(self, node: Node) -> None:
        others = len(self.children) - (node.name in self.children)
        self._launch(node, f"--address={self.state.address}")
        self._until(node.name, lambda: self._alive_nodes() == others + 1)

    def _launch(self, node: Node, *arguments: str) -> None:
        log = os.open(Path(self.order.folder) / f"{node.name}.log",
                      os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            child = subprocess.Popen(
                [*raylet(node, self.order.object_store_mb), *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )
        finally:
            os.close(log)
        self.children[node.name] = child
        others = [each for each in self.state.nodes if each.name != node.name]
        self.say(self.state.but(nodes=[*others, replace(node, pid=child.pid)]))

    def _until(self, name: str, ready: Callable[[], bool]) -> None:
        """Wait for a child to be `ready`; a child that is not is ended."""
        child, end = self.children[name], time.monotonic() + NODE_S
        while not self.stop.is_set() and not ready():
            if child.poll() is not None or time.monotonic() > end:
                child.kill()
                child.wait()
                raise RaymillError(f"a cluster must start, but its node {name} did not",
                                   cure=self._last_words(name))
            time.sleep(POLL_S)

    def _alive_nodes(self) -> int:
        """The nodes that the GCS knows to be alive."""
        raylet: Any = import_module("ray._raylet")
        try:
            nodes = raylet.GcsClient(address=self.state.address).get_all_node_info(timeout=5)
        except Exception:  # noqa: BLE001 - whatever it is, it does not answer yet
            return 0
        return sum(info.state == 0 for info in nodes.values())

    def _look(self) -> None:
        """Tell lost workers.

        Raises:
            RaymillError: the head is lost.
        """
        nodes = [replace(node, alive=self.children[node.name].poll() is None)
                 for node in self.state.nodes]
        if nodes != self.state.nodes:
            self.say(self.state.but(nodes=nodes))
        if not next(node.alive for node in nodes if node.name == "head"):
            raise RaymillError("the head of the cluster is lost, and the cluster with it",
                               cure="Start another: raymill cluster up. Runs go on on it.")

    def _last_words(self, name: str) -> str:
        """The end of what a child said."""
        path = Path(self.order.folder) / f"{name}.log"
        lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
        return " ".join(lines[-3:])[:500]

    def _end(self) -> None:
        """SIGTERM to all, the head last; the reaper ends those that don't heed it."""
        end = time.monotonic() + DRAIN_S
        for name in sorted(self.children, key=lambda name: name == "head"):
            if self.children[name].poll() is None:
                self.children[name].terminate()
        for child in self.children.values():
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.1, end - time.monotonic()))


def main(order_file: str) -> int:
    """Keep the cluster of an order; the exit code. The cause of a failure is in the state file."""
    os.umask(0o077)
    order = Order.read(Path(order_file))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with reaped(order.mark, Path(order.folder)):
        keeper = Keeper(order, stop)
        try:
            keeper.run()
        except RaymillError as error:
            keeper.say(keeper.state.but(phase="failed", error=str(error)))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
