"""Where the replicas of a service are: in a Ray of its own, or in a cluster beside other models."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import threading
import time
import traceback
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, Protocol

import ray
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException

from raymill.cluster.local import ray_session
from raymill.cluster.spec import ClusterSpec
from raymill.errors import Problem, RaymillError, UsageError
from raymill.ports import free_port

from .deploy import LOGGING, application, replica_counts
from .environment import SERVE
from .front import Front
from .order import Order, prefix_of
from .spec import ServingSpec

_APP = "raymill"  # of the Serve that has one application only
# Locks: of those that use a cluster's Serve (whoever ends it has it alone), and of who starts it.
_USE, _START = "raymill-serve.lock", "raymill-serve-start.lock"
_PATIENCE_S, _CONNECT_S, _COUNT_S = 5.0, 1.0, 0.5


class Place(Protocol):
    """Where a service's replicas are. `close` may be called at any time, also twice."""

    def open(self) -> None:
        """Have Ray."""

    def deploy(self) -> None:
        """Start the replicas and what is before them; returns when all answer.

        Raises:
            RuntimeError: a replica can't start; the message holds its cause.
        """

    def counts(self) -> tuple[int, int]:
        """Replicas that run, and how many Serve wants."""

    def check(self) -> None:
        """Raises RaymillError when the place is lost."""

    def close(self) -> None:
        """End what was started."""


def place_of(order: Order) -> Place:
    return InCluster(order) if order.cluster else Alone(order)


class Alone:
    """A Ray of the service's own, with every port on loopback, and all of it."""

    def __init__(self, order: Order) -> None:
        self._order = order

    def open(self) -> None:
        """Raises Exception: Ray did not start in two attempts."""
        spec = self._order.spec
        gpus = int(-(-spec.gpus_per_replica * spec.replicas.max // 1))
        arguments: dict[str, Any] = {
            "address": "local", "num_cpus": os.cpu_count() or 1, "num_gpus": gpus,
            "include_dashboard": False, "object_store_memory": 100 * 2**20, "log_to_driver": False,
            "logging_level": "ERROR", "_node_ip_address": "127.0.0.1",
        }
        try:
            ray.init(**arguments)
        except Exception:  # noqa: BLE001 - Ray raises bare ones
            # On a slow machine the agent's port file may come too late (ray#65983); once more.
            ray.shutdown()
            ray.init(**arguments)

    def deploy(self) -> None:
        spec = self._order.spec
        # Only HAProxy listens where the spec says (see haproxy.py); the replicas never do.
        serve.start(proxy_location="HeadOnly", logging_config=LOGGING,
                    http_options={"host": "127.0.0.1", "port": spec.port})
        serve.run(application(spec, self._order), name=_APP, route_prefix="/")

    def counts(self) -> tuple[int, int]:
        return replica_counts(_APP)

    def check(self) -> None:
        """It ends with this process only."""

    def close(self) -> None:
        if not ray.is_initialized():
            return
        try:
            serve.shutdown()
        except Exception:  # noqa: BLE001 - Ray's own end takes with it what Serve left
            traceback.print_exc()
        ray.shutdown()


class InCluster:
    """An application, called as its model, of the Serve that the models of a cluster share; with a
    HAProxy of its own before it (see front.py)."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._session = ExitStack()
        self._front: Front | None = None
        self._use: IO[str] | None = None  # of the cluster's Serve
        self._deployed, self._lost = False, False
        self._seen = time.monotonic()
        self._counts = (0, 0)
        self._ended = threading.Event()

    def open(self) -> None:
        """Raises UsageError: the cluster asks for no token, or has no room."""
        self._session.enter_context(ray_session(ClusterSpec(address=self._order.cluster)))
        _check_room(self._order.spec)

    def deploy(self) -> None:
        order = self._order
        self._use = _file(_USE)
        fcntl.flock(self._use, fcntl.LOCK_SH)
        spare = _start_serve()
        if order.name in serve.status().applications:
            raise UsageError(Problem(
                rule="an application of a cluster's Serve has a name of its own",
                got=f"{order.name}, which {order.cluster} has already",
                cure="End it where it was started: raymill serve stop, or Serve's own delete."))
        self._deployed = True
        serve.run(application(order.spec, order, variables=SERVE), name=order.name,
                  route_prefix=prefix_of(order.name))
        self._front = Front(order, _get_global_client()._controller, spare)
        self._front.start()
        self._counts = replica_counts(order.name)
        threading.Thread(target=self._count, name="count", daemon=True).start()

    def counts(self) -> tuple[int, int]:
        """As they were a moment ago: the supervisor never waits for Serve."""
        return self._counts

    def _count(self) -> None:
        """In a thread, because without a head it would not come back."""
        while not self._ended.wait(_COUNT_S):
            with suppress(ray.exceptions.RayError, RayServeException):
                self._counts = replica_counts(self._order.name)

    def check(self) -> None:
        if _answers(self._order.cluster):
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > _PATIENCE_S:
            self._lost = True
            raise RaymillError(f"the cluster at {self._order.cluster} is over, and what it served",
                               cure="Start another by raymill cluster up, and serve again.")

    def close(self) -> None:
        self._ended.set()
        if self._deployed and not self._lost:
            self._deployed = False
            try:
                serve.delete(self._order.name)
                if self._use is not None:
                    _end_serve(self._use)
            except Exception:  # noqa: BLE001 - the cluster may end at the same time
                traceback.print_exc()
        if self._use is not None:
            self._use.close()
        if self._front is not None:
            self._front.stop()
        if not self._lost:  # or it would wait for what is gone; the reaper ends this process
            self._session.close()


def undeploy(cluster: str, name: str) -> None:
    """Delete an application whose supervisor was killed, from a cluster that still answers."""
    if not _answers(cluster):
        return
    with ray_session(ClusterSpec(address=cluster)), _file(_USE) as use:
        if name in serve.status().applications:
            serve.delete(name)
            _end_serve(use)


def _file(name: str) -> IO[str]:
    """To be locked; in the folder of the cluster."""
    return Path(ray._private.worker._global_node.get_session_dir_path(), name).open("w")


def _start_serve() -> int:
    """Serve, started by one of those that want it unless the cluster has it; the port of its own
    proxy.

    Raises:
        RaymillError: it was started by others, and listens beyond loopback.
    """
    with _file(_START) as start:
        fcntl.flock(start, fcntl.LOCK_EX)
        _found_or_started()
    options = _get_global_client().http_config
    if options.host not in ("127.0.0.1", "localhost"):
        raise RaymillError(Problem(
            rule="replicas listen on loopback only", got=f"a Serve of the cluster on {options.host}",
            cure="End it (serve shutdown), or serve beside the cluster: --address local."))
    return int(options.port)


def _found_or_started() -> None:
    if _get_global_client(raise_if_no_controller_running=False) is None:
        # Its own proxy, which holds requests while no replica answers, is the one in Python: a
        # HAProxy before all models would have one port and one certificate for them.
        variables = SERVE | {"RAY_SERVE_ENABLE_HA_PROXY": "0"}
        serve.start(proxy_location="HeadOnly", logging_config=LOGGING,
                    http_options={"host": "127.0.0.1", "port": free_port()},
                    controller_options={"runtime_env": {"env_vars": variables}})


def _end_serve(use: IO[str]) -> None:
    """After the last application, of whoever: the cluster is as it was, and soon ended."""
    try:
        fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    if not serve.status().applications:
        serve.shutdown()


def _check_room(spec: ServingSpec) -> None:
    """More replicas than the nodes have room for wait until there is: a node may be added."""
    rooms = [_room(node["Resources"], spec) for node in ray.nodes() if node["Alive"]]
    least = max(1, spec.replicas.min)
    if sum(rooms) < least:
        raise UsageError(
            f"serving.replicas.min={spec.replicas.min}, at least one, with cpus_per_replica="
            f"{spec.cpus_per_replica:g} and gpus_per_replica={spec.gpus_per_replica:g} needs more "
            f"than the nodes have, which is room for {sum(rooms)}",
            cure="Lower one of them, or add nodes.")


def _room(resources: dict[str, float], spec: ServingSpec) -> int:
    needs = {"CPU": spec.cpus_per_replica, "GPU": spec.gpus_per_replica}
    return min(int(resources.get(name, 0) / each + 1e-9) for name, each in needs.items() if each)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), _CONNECT_S):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    undeploy(*sys.argv[1:])
