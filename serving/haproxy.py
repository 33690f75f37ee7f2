"""Stands in for the HAProxy binary: narrows the configuration that Ray wrote, then becomes it.

Ray Serve writes a configuration that binds its metrics and statistics pages to every interface,
opens its admin socket to every user, sets no deadline for a request's head, lets clients set
Serve's own control headers, and answers 404 or 500 where no replica answers. None of these can be set
from outside in Ray 2.60, but the binary can (RAY_SERVE_HAPROXY_BINARY_PATH).

Run by path, not imported, in a bare interpreter: only the standard library.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
from pathlib import Path

BINARY, PAGE = "RAYMILL_HAPROXY", "RAYMILL_HAPROXY_503"
UNAVAILABLE = (
    '{"type":"about:blank","title":"Service Unavailable","status":503,'
    '"detail":"No replica answers just now; try again in 1 s."}'
)
_HEAD_TIMEOUT_S = 10
_CONTROL_HEADERS = (
    "x-request-timeout-seconds", "x-request-disconnect-disabled", "serve_multiplexed_model_id",
    "serve-multiplexed-model-id", "x-session-id",
)
_PR_SET_PDEATHSIG = 1


def narrow(config: str, page: str) -> str:
    """`config` with loopback binds, a private socket, a head timeout, and our 503 `page`."""
    config = re.sub(r"(?m)^(\s*bind )\*?:(\d+)$", r"\g<1>127.0.0.1:\2", config)
    config = config.replace(" mode 666 level admin", " mode 600 level admin")
    config = re.sub(r"(?m)^(\s*errorfile) (502|503|504) .*$", rf"\1 \2 {page}", config)
    # The one app has every path, so HAProxy itself knows none only while it is starting.
    config = re.sub(
        r"(?m)^(backend default_backend\n\s*http-request return status) 404 .*$",
        lambda m: f"{m[1]} 503 content-type application/problem+json hdr retry-after 1 "
        f"string '{UNAVAILABLE}'",
        config,
    )
    if "timeout http-request" not in config:
        line = f"    timeout http-request {_HEAD_TIMEOUT_S}s"
        config = config.replace("defaults\n    mode http\n", f"defaults\n    mode http\n{line}\n", 1)
    if "del-header server" not in config:
        dropped = "".join(f"    http-request del-header {name}\n" for name in _CONTROL_HEADERS)
        rules = (
            f"{dropped}    http-request del-header x-serve- -m beg\n"
            "    http-response del-header server\n"
        )
        config = re.sub(
            r"(?m)^(frontend http_frontend\n\s*bind .*\n)", lambda m: m[1] + rules, config, count=1
        )
    return config


def main(arguments: list[str]) -> None:
    path = Path(arguments[arguments.index("-f") + 1])
    path.write_text(narrow(path.read_text(), os.environ[PAGE]))
    # Nobody else would end HAProxy if its manager were killed.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    binary = os.environ[BINARY]
    os.execv(binary, [binary, *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
