"""Starts, watches and stops services; each is a supervisor process, with a Ray of its own or an
application in a cluster."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from raymill.errors import RaymillError, UsageError
from raymill.events import Notify, note, warn
from raymill.stores import store_at

from . import keys, state
from .capacity import fitting
from .environment import MARK, environment
from .order import ModelVersionLike, Order, log_path, prefix_of
from .spec import ServingSpec
from .state import ServiceStatus
from .tls import check_tls

_LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND  # its replicas write there too
_START_S, _STOP_S, _POLL_S = 180.0, 45.0, 0.2


def run(
    version: ModelVersionLike, spec: ServingSpec, home: Path, notify: Notify, tracking: str = "",
    cluster: str = "",
) -> None:
    """Serve in the foreground until Ctrl-C, then stop; the service also ends with this process.
    See `start_detached`.

    Raises:
        UsageError: the name is served already, the port is taken, or the replicas don't fit.
        RaymillError: the service could not start, or died.
    """
    process = _launch(version, spec, home, parent=os.getpid(), notify=notify,
                      tracking=tracking, cluster=cluster)
    try:
        ready = _until_ready(process, version.name, home, notify)
        _follow(process, ready, home, notify)
    except KeyboardInterrupt:
        note(notify, f"stopping {version.name}")
    finally:
        _end(version.name, home)
        process.wait()


def start_detached(
    version: ModelVersionLike, spec: ServingSpec, home: Path, notify: Notify, tracking: str = "",
    cluster: str = "",
) -> ServiceStatus:
    """Start a service that goes on when this process ends; returns when it answers.

    Args:
        tracking: URI of the registry that a rollout is told to; "": the home's own.
        cluster: host:port of a cluster on this machine that is to have the replicas; "": they get
            a Ray of their own.

    Raises:
        UsageError: the name is served already, the port is taken, or the replicas don't fit.
        RaymillError: the service could not start.
    """
    process = _launch(version, spec, home, parent=0, notify=notify, tracking=tracking,
                      cluster=cluster)
    try:
        ready = _until_ready(process, version.name, home, notify)
        process.returncode = 0  # it goes on by itself: nobody waits for it or warns that it runs
        return ready
    except BaseException:
        _end(version.name, home)
        process.wait()
        raise


def status(home: Path, name: str | None = None) -> list[ServiceStatus]:
    """The services of `home` (or the one called `name`), stopped ones left out."""
    names = [name] if name is not None else [p.stem for p in state.services(home).glob("*.json")]
    found = [state.read(home, each) for each in sorted(names)]
    return [each for each in found if each is not None and each.state != "stopped"]


def stop(home: Path, name: str) -> None:
    """End a service and every process of it, and forget it; also one that failed.

    Raises:
        UsageError: there is no such service.
    """
    if state.read(home, name) is None:
        running = ", ".join(each.name for each in status(home)) or "none runs"
        raise UsageError(f"no service is called {name!r}", cure=f"Services: {running}.")
    _end(name, home)
    state.forget(home, name)


def _launch(
    version: ModelVersionLike, spec: ServingSpec, home: Path, *, parent: int, notify: Notify,
    tracking: str = "", cluster: str = "",
) -> subprocess.Popen[bytes]:
    if version.bundle_path is None:
        raise UsageError(f"the bundle of {version.name} version {version.version} is not on this "
                         "machine", cure="Resolve the version through the registry first.")
    fitted = spec if cluster else fitting(spec, os.cpu_count() or 1)
    if fitted != spec:
        warn(notify, f"serving.replicas.max={spec.replicas.max} is more than this machine has "
                     f"CPUs for; at most {fitted.replicas.max} replicas will run")
    _check_access(fitted, home, notify)
    if fitted.log is not None and fitted.log.store is not None:
        store_at(fitted.log.store).check("serving.log.store")
    with state.held(home, version.name):
        _check_free(version.name, fitted, home)
        # 0700, and short for its sockets
        folder = Path(tempfile.mkdtemp(prefix="rm-", dir="/tmp"))
        return _start(Order(
            name=version.name, version=version.version, digest=version.digest,
            bundle=str(version.bundle_path.resolve()), spec=fitted, home=str(home.resolve()),
            folder=str(folder), parent=parent, tracking=tracking, cluster=cluster,
        ))


def _check_access(spec: ServingSpec, home: Path, notify: Notify) -> None:
    if spec.keys and not keys.live(home):
        raise UsageError("serving.keys needs a key, but there is none",
                         cure="Make one: raymill serve keys add NAME.")
    if spec.tls is not None:
        check_tls(spec.tls)
    elif not spec.loopback:
        warn(notify, f"{spec.host}:{spec.port} is without TLS: keys and rows go as clear text; "
                     "set serving.tls, or put a proxy with TLS in front")


def _start(order: Order) -> subprocess.Popen[bytes]:
    """The supervisor's process, already named in the state file: it takes seconds to say more."""
    path, folder = order.write(), Path(order.folder)
    variables = environment(folder, order.spec, prefix_of(order.name) if order.cluster else "")
    log = os.open(order.log, _LOG_FLAGS, 0o600)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "raymill.serving.supervisor", str(path)],
            env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,  # Ctrl-C is for the parent, which then ends the service
        )
    finally:
        os.close(log)
    created = psutil.Process(process.pid).create_time()
    state.write(Path(order.home), state.first(order).but(pid=process.pid, created=created))
    return process


def _check_free(name: str, spec: ServingSpec, home: Path) -> None:
    known = state.read(home, name)
    if known is not None and known.alive:
        raise UsageError(f"{name} is served already, at {known.url}",
                         cure=f"End it by `raymill serve stop {name}`.")
    if known is not None:
        _end(name, home)
    _check_port(spec.host, spec.port, "port")
    if spec.grpc_port is not None:
        _check_port("127.0.0.1", spec.grpc_port, "grpc_port")


def _check_port(host: str, port: int, key: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            raise UsageError(f"port {port} of {host} is taken",
                             cure=f"Name another by --set serving.{key}={port + 1}.") from None


def _until_ready(
    process: subprocess.Popen[bytes], name: str, home: Path, notify: Notify
) -> ServiceStatus:
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        current = state.read(home, name)
        if current is not None and current.state == "ready":
            note(notify, f"{name} version {current.version} answers at {current.url}")
            return current
        if process.poll() is not None:
            cause = current.error if current is not None else ""
            raise RaymillError(f"{name} could not be served: {cause or 'its process died'}",
                               cure=f"See {log_path(home, name)}.")
        time.sleep(_POLL_S)
    raise RaymillError(f"{name} did not answer within {_START_S:g} s",
                       cure=f"See {log_path(home, name)}.")


def _follow(
    process: subprocess.Popen[bytes], last: ServiceStatus, home: Path, notify: Notify
) -> None:
    """Tell each change of the number of replicas, until the service ends."""
    told = len(last.timeline)
    while process.poll() is None:
        current = state.read(home, last.name) or last
        for moment, replicas, target in current.timeline[told:]:
            clock = time.strftime("%H:%M:%S", time.localtime(moment))
            note(notify, f"{clock} replicas: {replicas} of {target} wanted")
        told = len(current.timeline)
        time.sleep(_POLL_S)
    if process.returncode:
        raise RaymillError(f"{last.name} died", cure=f"See {log_path(home, last.name)}.")


def _end(name: str, home: Path) -> None:
    """SIGTERM to the supervisor, then SIGKILL to whatever is left with the service's mark."""
    known = state.read(home, name)
    if known is None:
        return
    supervisor = state.owner(known)
    if supervisor is not None:
        with suppress(psutil.Error):  # it ended by itself meanwhile
            supervisor.send_signal(signal.SIGTERM)
            _wait(supervisor)
    for process in _marked(known.folder):
        with suppress(psutil.Error):
            process.kill()
    _remove(Path(known.folder))
    if known.cluster and (now := state.read(home, name)) is not None and now.state == "dead":
        _undeploy(known)
    if known.state != "failed":
        state.forget(home, name)


def _undeploy(known: ServiceStatus) -> None:
    """What a supervisor does that was not killed.

    Raises:
        RaymillError: the cluster still has the application.
    """
    done = subprocess.run(
        [sys.executable, "-m", "raymill.serving.places", known.cluster, known.name],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_START_S, check=False)
    if done.returncode:
        raise RaymillError(f"{known.name} is still an application of the cluster at "
                           f"{known.cluster}: {done.stderr.strip().splitlines()[-1:]}",
                           cure="End the cluster: raymill cluster down.")


def _wait(process: psutil.Process) -> None:
    try:
        process.wait(_STOP_S)
    except psutil.TimeoutExpired:
        process.kill()


def _marked(folder: str) -> list[psutil.Process]:
    """Our processes that carry the service's mark: HAProxy, workers, whatever it started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == folder:
                found.append(process)
        except psutil.Error:
            continue
    return found


def _remove(folder: Path) -> None:
    """Only ever a folder that `_launch` made."""
    if folder.parent == Path("/tmp") and folder.name.startswith("rm-") and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
