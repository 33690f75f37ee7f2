"""Stands in for the HAProxy binary: narrows the configuration that Ray wrote, then becomes it.

Ray Serve writes a configuration that binds its metrics and statistics pages to every interface,
opens its admin socket to every user, sets no deadline for a request's head, lets clients set
Serve's own control headers, knows no TLS, and answers 404 or 500 where no replica answers. None of
these can be set from outside in Ray 2.60, but the binary can (RAY_SERVE_HAPROXY_BINARY_PATH).

Run by path, not imported, in a bare interpreter: only the standard library.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

BINARY, FRONT = "RAYMILL_HAPROXY", "RAYMILL_HAPROXY_FRONT"
UNAVAILABLE = (
    '{"type":"about:blank","title":"Service Unavailable","status":503,'
    '"detail":"No replica answers just now; try again in 1 s."}'
)
NOT_FOUND = '{"type":"about:blank","title":"Not Found","status":404,"detail":"There is no such path."}'
PURE = ("/predict", "/invocations")
"""Paths, and all below /v2/, whose POST may be asked again on another replica when one dies."""
_HEAD_TIMEOUT_S, _IDLE_TIMEOUT_S = 10, 60
_CONTROL_HEADERS = (
    "x-request-timeout-seconds", "x-request-disconnect-disabled", "serve_multiplexed_model_id",
    "serve-multiplexed-model-id", "x-session-id",
)
_SERVER = re.compile(r"(?m)^ +server \S+ \S+ check(?P<backup> backup)?")
# What is asked again and again must not start a replica where none is wanted.
_IDLE = (
    ("/healthz /v2/health/live /ping", "application/json", """'{"status":"idle"}'"""),
    ("/metrics", "text/plain", r'"# TYPE raymill_replicas gauge\nraymill_replicas 0\n"'),
)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Front:
    """What the configuration is to say instead: the page of a 503, where the endpoint listens, the
    file of its certificate ("" without TLS), a private socket to it without TLS, whether it may be
    without replicas, and below which path Serve knows the application ("": it has every path)."""

    page: str
    host: str
    certificate: str
    inside: str
    may_idle: bool = False
    prefix: str = ""

    def text(self) -> str:
        return json.dumps(asdict(self))


def narrow(config: str, front: Front) -> str:
    """`config` with loopback binds, a private socket, timeouts, retries of what is pure, our own
    503 page, and TLS."""
    config = re.sub(r"(?m)^(\s*bind )\*?:(\d+)$", r"\g<1>127.0.0.1:\2", config)
    config = config.replace(" mode 666 level admin", " mode 600 level admin")
    config = re.sub(r"(?m)^(\s*errorfile) (502|503|504) .*$", rf"\1 \2 {front.page}", config)
    # The one app has every path, so HAProxy itself knows none only while it is starting.
    config = re.sub(
        r"(?m)^(backend default_backend\n\s*http-request return status) 404 .*$",
        lambda m: f"{m[1]} 503 content-type application/problem+json hdr retry-after 1 "
        f"string '{UNAVAILABLE}'",
        config,
    )
    if "timeout http-request" not in config:
        config = config.replace("defaults\n    mode http\n", f"defaults\n    mode http\n{_DEFAULTS}", 1)
    servers = [match["backup"] for match in _SERVER.finditer(config)]
    idle = _idle_rules() if front.may_idle and servers and all(servers) else ""
    if front.prefix and "set-path" not in config:
        config = _below(front.prefix, config)
    if "del-header server" not in config:
        config = re.sub(
            r"(?m)^frontend http_frontend\n\s*bind \S+:(\d+)\n",
            lambda m: f"frontend http_frontend\n{_binds(front, m[1])}{_rules()}{idle}", config, count=1,
        )
    return config


# A body that lies in the buffer as a whole can be sent a second time.
_DEFAULTS = f"""\
    timeout http-request {_HEAD_TIMEOUT_S}s
    timeout http-keep-alive {_IDLE_TIMEOUT_S}s
    option http-buffer-request
"""


def _below(prefix: str, config: str) -> str:
    """`config` whose replicas are asked below `prefix`, and are in good health only where they are
    of that application: a port that a dead one left may be taken by another model's."""
    config = re.sub(r"(?m)^(backend (?!default_backend$).+\n)",
                    rf"\1    http-request set-path {prefix}%[path]\n", config)
    return re.sub(r"(?m)^( *http-check expect) status 200$", rf'\1 string \"{prefix}\"', config)


def _binds(front: Front, port: str) -> str:
    tls = f" ssl crt {front.certificate} ssl-min-ver TLSv1.2 alpn h2,http/1.1"
    return (f"    bind {front.host}:{port}{tls if front.certificate else ''}\n"
            f"    bind unix@{front.inside} mode 600\n")


def _idle_rules() -> str:
    """Answers to probes while no replica runs; all else waits at Serve's own proxy for one."""
    return "".join(
        f"    http-request return status 200 content-type {kind} string {text} if {{ path {paths} }}\n"
        for paths, kind, text in _IDLE)


def _rules() -> str:
    dropped = "".join(f"    http-request del-header {name}\n" for name in _CONTROL_HEADERS)
    return (
        f"{dropped}    http-request del-header x-serve- -m beg\n"
        "    http-response del-header server\n"
        "    http-request disable-l7-retry if METH_POST !{ path "
        f"{' '.join(PURE)} }} !{{ path_beg /v2/ }}\n"
        "    http-request return status 404 content-type application/problem+json "
        f"string '{NOT_FOUND}' if {{ path -i /-/routes }} or !{{ path_beg / }}\n"
    )


def main(arguments: list[str]) -> None:
    path = Path(arguments[arguments.index("-f") + 1])
    front = Front(**json.loads(os.environ[FRONT]))
    path.write_text(narrow(path.read_text(), front))
    # Nobody else would end HAProxy if its manager were killed.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    binary = os.environ[BINARY]
    os.execv(binary, [binary, *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
