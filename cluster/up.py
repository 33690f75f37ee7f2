"""Starts and ends a cluster of several raylets on this machine."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from raymill.errors import RaymillError, UsageError
from raymill.events import Notify, ignore, note
from raymill.reaper import marked, reap

from . import state
from .environment import MARK
from .keeper import Order
from .state import ClusterState, Node

_START_S, _STOP_S, _POLL_S = 300.0, 40.0, 0.2


def up(
    home: Path, *, workers: int = 2, cpus: int = 1, gpus: int = 0, head_cpus: int = 0,
    object_store_mb: int = 200, notify: Notify = ignore,
) -> ClusterState:
    """A head and `workers` raylets with `cpus` and `gpus` each; returns when all are there.

    It goes on when this process ends. Everything listens on loopback and asks for the token,
    which is in place before.

    Raises:
        UsageError: this home has a cluster already.
        RaymillError: it did not start; the message holds Ray's last words.
    """
    known = state.read(home)
    if known is not None and known.keeper is not None:
        raise UsageError(f"a home has one cluster, and {known.address} runs",
                         cure="raymill cluster down ends it.")
    if known is not None:
        _clear(home, known)
    process = _launch(Order(
        home=str(home.resolve()), folder=_folder(), mark=secrets.token_hex(8),
        head_cpus=head_cpus, object_store_mb=object_store_mb,
        workers=[Node(name=f"worker-{number}", cpus=cpus, gpus=gpus)
                 for number in range(1, workers + 1)],
    ))
    try:
        found = _until_ready(home, process)
    except BaseException:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        process.wait(_STOP_S)
        raise
    process.returncode = 0  # it goes on by itself
    note(notify, f"{len(found.nodes)} nodes at {found.address}")
    return found


def down(home: Path) -> ClusterState:
    """End the cluster and every process of it.

    Raises:
        UsageError: there is none.
        RaymillError: a process of it could not be ended.
    """
    known = state.read(home)
    if known is None:
        raise UsageError("this home has no cluster", cure="raymill cluster up starts one.")
    if (keeper := known.keeper) is not None:
        with suppress(psutil.Error):
            keeper.send_signal(signal.SIGTERM)
            with suppress(psutil.TimeoutExpired):
                keeper.wait(_STOP_S)
    _clear(home, known)
    if left := marked(_mark(known)):
        raise RaymillError(f"every process of the cluster must end, but these did not: {left}",
                           cure="kill -9 them.")
    return known


def _clear(home: Path, known: ClusterState) -> None:
    reap(_mark(known), grace_s=1.0)
    state.forget(home)


def _mark(known: ClusterState) -> bytes:
    return f"{MARK}={known.mark}".encode()


def _folder() -> str:
    """In /tmp, because the path of a unix socket has 107 bytes."""
    return tempfile.mkdtemp(prefix="raymill-", dir="/tmp")


def _launch(order: Order) -> subprocess.Popen[bytes]:
    log = os.open(Path(order.home) / "cluster.log",
                  os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    variables = {key: value for key, value in os.environ.items()
                 if key not in (MARK, "RAY_ADDRESS", "RAY_TMPDIR", "RAY_JOB_CONFIG_JSON_ENV_VAR")}
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "raymill.cluster.keeper", str(order.write())],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env=variables, cwd=order.home,
        )
    finally:
        os.close(log)


def _until_ready(home: Path, process: subprocess.Popen[bytes]) -> ClusterState:
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        current = state.read(home)
        if current is not None and current.pid == process.pid and current.phase == "ready":
            return current
        if process.poll() is not None:
            cause = current.error if current is not None else ""
            raise RaymillError(f"the cluster could not be started: {cause or 'its keeper died'}",
                               cure=f"See {home / 'cluster.log'}.")
        time.sleep(_POLL_S)
    raise RaymillError(f"the cluster did not start within {_START_S:g} s",
                       cure=f"See {home / 'cluster.log'}.")
