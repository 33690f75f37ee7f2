"""Servers that others would put the network of `benchmarks.nets` behind, each a module with
`main(port)`: what its own guide shows, with nothing around the network (no contract, no transform,
no limits). Each is a process of its own while its figure is measured."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from raymill.ports import free_port

_START_S = 120.0


@contextmanager
def answering(peer: str, ready: str) -> Iterator[int]:
    """The server of the module `peer`, answering GET at the path `ready`; its port."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", f"benchmarks.peers.{peer}", str(port)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, start_new_session=True,
    )
    try:
        _wait(process, f"http://127.0.0.1:{port}{ready}", peer)
        yield port
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):  # LitServe's workers outlive it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, peer: str) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"{peer} ended with {process.returncode} before it answered")
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise RuntimeError(f"{peer} did not answer within {_START_S:g} s")
