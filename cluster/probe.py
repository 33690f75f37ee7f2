"""Whether a cluster asks for its token: found out by asking it without one."""

from __future__ import annotations

import urllib.error
import urllib.request
from enum import Enum
from urllib.parse import urlsplit

from raymill.errors import Problem, UsageError

TIMEOUT_S = 5.0


class GuardState(Enum):
    """What a request without a token is told."""

    GUARDED = "refused"
    OPEN = "answered"
    SILENT = "nothing answers"


def guard(address: str, timeout_s: float = TIMEOUT_S) -> GuardState:
    """Ask the GCS at `host:port` for its nodes, without a token."""
    import grpc
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        try:
            stub.GetAllNodeInfo(gcs_service_pb2.GetAllNodeInfoRequest(), timeout=timeout_s)
        except grpc.RpcError as error:
            refused = error.code() in (grpc.StatusCode.UNAUTHENTICATED,
                                       grpc.StatusCode.PERMISSION_DENIED)
            return GuardState.GUARDED if refused else GuardState.SILENT
    return GuardState.OPEN


def guard_http(url: str, timeout_s: float = TIMEOUT_S) -> GuardState:
    """Ask the job API at `url` for its version, without a token."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url.rstrip('/')}/api/version", timeout=timeout_s):
            return GuardState.OPEN
    except urllib.error.HTTPError as error:
        with error:
            return GuardState.GUARDED if error.code in (401, 403) else GuardState.SILENT
    except OSError:
        return GuardState.SILENT


def require_guard(address: str) -> None:
    """Refuse a cluster that anybody can use; `address` is `host:port`, or an http(s) URL.

    Raises:
        UsageError: it answers without a token, or nothing answers.
    """
    found = guard_http(address) if urlsplit(address).scheme in ("http", "https") else guard(address)
    if found is GuardState.OPEN:
        raise UsageError(Problem(
            rule=f"a cluster must ask for a token, for who reaches it runs code there: {address}",
            got="an answer to a request without one",
            cure="Start it with RAY_AUTH_MODE=token and a token file; raymill cluster up does, "
                 "and so do the manifests of raymill k8s."))
    if found is GuardState.SILENT:
        raise UsageError(f"a Ray cluster must answer at {address}, but nothing does",
                         cure="raymill cluster up starts one on this machine.")
