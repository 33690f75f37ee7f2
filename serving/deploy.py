"""The deployment on Ray Serve: one replica is one process with the verified bundle."""

from __future__ import annotations

import logging
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from ray import serve

from raymill.errors import RaymillError

from .access_log import AccessLog
from .aside import aside
from .environment import METRICS
from .follower import MOST_SHARE
from .guards import guards_of
from .loading import Load, load_bundle
from .order import Order, write_private
from .pace import Pace
from .plan import Plan
from .scaling import autoscaling
from .spec import ServingSpec
from .whole import answer_in_one_piece

DEPLOYMENT = "Replica"
CAUSE = "cause"  # the file that says why a replica did not start
LOGGING = {"enable_access_log": False, "log_level": "WARNING"}


class Replica:
    """Serves one bundle. Serve calls the hooks; requests go straight to the ASGI app."""

    def __init__(self, order: Order, load: Load) -> None:
        os.umask(0o077)
        _close_replica_port(Path(order.folder))
        answer_in_one_piece()
        os.environ[METRICS] = str(Path(order.folder) / "metrics")
        logging.getLogger("raymill.serving").addHandler(_log(order))
        # Only now: prometheus_client settles at its import whether replicas share their counts.
        aside(_import)
        from .endpoint import build, build_following

        folder, target_ms = Path(order.folder), order.spec.replicas.target_p99_ms
        self._pace = None if target_ms is None else Pace(target_ms)
        try:
            home = Path(order.home)
            guards = guards_of(order.spec, home, folder)
            plan = Plan.read(folder)
            if plan is None:
                contract, predictor = aside(lambda: load(order))
                self._endpoint = build(
                    order.name, order.version, order.spec, contract, predictor, guards, home
                )
            else:
                self._endpoint = build_following(
                    order.name, order.spec, folder, plan, lambda variant: load(order.of(variant)),
                    guards, home,
                )
            if order.spec.access_log:
                self._endpoint.observe(AccessLog(home, order.name))
            if self._pace is not None:
                self._endpoint.observe(self._pace)
        except Exception as error:
            # Serve's own message does not hold the cause.
            told = str(error) if isinstance(error, RaymillError) else repr(error)
            write_private(Path(order.folder) / CAUSE, told)
            raise

    def __serve_build_asgi_app__(self) -> Any:
        return self._endpoint

    def __del__(self) -> None:
        """Serve calls it once the replica has drained."""
        if hasattr(self, "_endpoint"):
            self._endpoint.close()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What the policy of `target_p99_ms` looks at."""
        return {} if self._pace is None else self._pace.counts()

    def check_health(self) -> None:
        if self._endpoint.stuck:
            raise RuntimeError("a forward pass hangs")


def _import() -> None:
    """What a replica imports, which is most of its start."""
    for name in (".endpoint", "raymill.training.predictor", "raymill.training.factories"):
        import_module(name, __package__)


def application(
    spec: ServingSpec, order: Order, load: Load = load_bundle, replica: type[Replica] = Replica,
    variables: dict[str, str] | None = None,
) -> serve.Application:
    """The endpoint of `order` as Serve takes it, with the limits and the autoscaling of `spec`.

    Args:
        variables: of the replicas' environment, which else is their Ray's.
    """
    runtime = {} if variables is None else {"runtime_env": {"env_vars": variables}}
    deployment = serve.deployment(
        name=DEPLOYMENT,
        ray_actor_options={"num_cpus": spec.cpus_per_replica, "num_gpus": spec.gpus_per_replica,
                           **runtime},
        # Past what may wait the app itself answers 429; Serve's own limit lies just above it.
        max_ongoing_requests=(1 + min(spec.replicas.max, MOST_SHARE)) * spec.max_waiting,
        max_queued_requests=spec.max_waiting,
        backpressure_config={"status_code": 429, "retry_after_s": 1},
        autoscaling_config=autoscaling(spec),
        health_check_period_s=2,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=drain_s(spec),
        graceful_shutdown_wait_loop_s=0.5,
        max_constructor_retry_count=1,
        logging_config=LOGGING,
    )(serve.ingress()(replica))
    return deployment.bind(order, load)


def drain_s(spec: ServingSpec) -> float:
    """How long a replica that is to stop may take for the requests that it has."""
    return spec.deadline_ms / 1000 + 5


def replica_counts(name: str) -> tuple[int, int]:
    """Replicas of an application that run, and how many Serve wants."""
    app = serve.status().applications.get(name)
    status = app.deployments.get(DEPLOYMENT) if app is not None else None
    if status is None:
        return 0, 0
    states = {str(state): int(count) for state, count in status.replica_states.items()}
    wanted = sum(count for state, count in states.items() if state != "STOPPING")
    return states.get("RUNNING", 0), wanted


def _close_replica_port(folder: Path) -> None:
    """Put the replica's port for other replicas on a private unix socket.

    Serve opens it on every interface, asks for no token and unpickles what arrives.
    """
    import ray.serve._private.replica as module

    def private(server: Any, address: str) -> int:
        return int(server.add_insecure_port(f"unix:{folder}/r{os.getpid()}.sock"))

    module.add_port_to_grpc_server = private


def _log(order: Order) -> logging.Handler:
    handler = logging.FileHandler(order.log)
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(message)s"))
    return handler
