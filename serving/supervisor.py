"""The process that owns a service: its Ray, its Serve, and the file that tells its state."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from importlib.resources import files
from pathlib import Path
from typing import IO

import psutil

from raymill.errors import RaymillError
from raymill.monitoring.store import finish_left, log_folder

from .conductor import Conductor
from .deploy import CAUSE
from .environment import MARK
from .order import Order
from .places import Place, place_of
from .plan import tell_wanted
from .state import ServiceStatus, first, held, write
from .worth import LoggedValues

_PR_SET_PDEATHSIG = 1
_POLL_S, _TICK_S = 0.5, 0.05
_TIMELINE = 200


def main(order_file: str) -> int:
    """Serve the order until SIGTERM. Returns the exit code; the cause of a failure is in the
    state file."""
    os.umask(0o077)
    order = Order.read(Path(order_file))
    stop = threading.Event()
    _on_signals(stop)
    if order.parent:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != order.parent:
            return 1
    created = psutil.Process().create_time()
    status = first(order).but(pid=os.getpid(), created=created)
    with held(Path(order.home), order.name):  # after the first word, by whoever started this
        write(Path(order.home), status)
    reaper, place = _reaper(order), place_of(order)
    try:
        status = _serve(order, place, status, stop)
    except Exception as error:  # noqa: BLE001 - the state file tells it
        traceback.print_exc()
        write(Path(order.home), status.but(state="failed", error=_cause(order, error)))
        return 1
    finally:
        place.close()
        _finish_log(order)
        reaper.close()
    write(Path(order.home), status.but(state="stopped"))
    return 0


def _serve(
    order: Order, place: Place, status: ServiceStatus, stop: threading.Event
) -> ServiceStatus:
    home = Path(order.home)
    place.open()
    _on_signals(stop)  # ray.init put its own handler in place of ours
    if stop.is_set():
        return status
    values = LoggedValues(home, order.name) if order.spec.log is not None else None
    conductor = Conductor(order, values)
    place.deploy()
    front, counted = _front(order), 0.0
    while not stop.wait(_TICK_S):
        conductor.tick()
        champion = conductor.plan.champion
        if champion.version != status.version:
            status = status.but(version=champion.version, digest=champion.digest)
            write(home, status)
        if time.monotonic() - counted < _POLL_S:
            continue
        counted = time.monotonic()
        if front is not None and front.poll() is not None:
            front = _front(order)
        place.check()
        running, target = place.counts()
        if (running, target) != (status.replicas, status.target) or status.state != "ready":
            tell_wanted(Path(order.folder), max(target, order.spec.replicas.min))
            moment = (round(time.time(), 2), running, target)
            status = status.but(
                state="ready", replicas=running, target=target,
                timeline=[*status.timeline, moment][-_TIMELINE:],
            )
            write(home, status)
    status = status.but(state="stopping")
    write(home, status)
    if front is not None:
        front.terminate()
        front.wait()
    return status


def _front(order: Order) -> subprocess.Popen[bytes] | None:
    """The process that speaks gRPC, where the spec wants it; it ends with this one."""
    if order.spec.grpc_port is None:
        return None
    path = Path(order.folder) / "order.json"
    return subprocess.Popen(
        [sys.executable, "-m", "raymill.serving.grpc_front", str(path)], stdin=subprocess.DEVNULL
    )


def _reaper(order: Order) -> IO[bytes]:
    """Starts a process that ends what is left of the service once this one is gone or has closed
    what is returned; also after a kill -9."""
    script = files("raymill").joinpath("reaper.py")
    process = subprocess.Popen(
        [sys.executable, "-IS", str(script), f"{MARK}={order.folder}", order.folder],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={key: value for key, value in os.environ.items() if key != MARK}, cwd="/",
        start_new_session=True,
    )
    assert process.stdin is not None
    process.returncode = 0  # it outlives this process, which does not wait for it
    return process.stdin


def _on_signals(stop: threading.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


def _finish_log(order: Order) -> None:
    """Makes files of what the replicas left open; a later start or `finish_left` can do it too."""
    try:
        finish_left(log_folder(Path(order.home), order.name))
    except OSError:
        traceback.print_exc()


def _cause(order: Order, error: Exception) -> str:
    told = Path(order.folder) / CAUSE
    if isinstance(error, RaymillError):
        return str(error)
    return told.read_text() if told.exists() else f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
