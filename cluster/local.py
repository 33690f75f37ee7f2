"""The Ray instance that a run uses: one of its own on this machine, or a running cluster."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

from raymill.errors import Problem, RaymillError, UsageError
from raymill.events import Notify, ignore, warn
from raymill.ports import free_port

from .environment import MARK, applied, ensure_token, for_existing, for_new
from .probe import require_guard
from .spec import ClusterSpec

_ATTEMPTS = 2  # Ray gives its agents a fixed time to write their ports, too little on a busy box
_REAPER_S = 30.0


@dataclass(frozen=True)
class Capacity:
    """What the cluster has: CPUs, GPUs, and the `host:port` of its GCS."""

    cpus: float
    gpus: float
    address: str


@contextmanager
def ray_session(
    spec: ClusterSpec, project: Path | None = None, notify: Notify = ignore
) -> Iterator[Capacity]:
    """Ray for the time of the block.

    `address: local` starts an instance that listens on loopback only, asks for a token, keeps its
    files in a folder of its own (0700), and leaves no process behind, also when this process is
    killed. Other addresses are attached to and left running, once they have refused a request
    without a token. `project` is put on the PYTHONPATH of
    the workers; a cluster of several machines must see it under the same path. Inside a program
    that has called `ray.init()` itself, that instance is used and left alone.

    Raises:
        RaymillError: Ray does not start, or the cluster does not answer.
        UsageError: `cpus`, `gpus` or `object_store_mb` with a cluster that is already running, or
            a cluster that asks for no token.
    """
    with ExitStack() as stack:
        if _running():
            yield _capacity()
            return
        if spec.address == "local":
            _enter_local(stack, spec, project, notify)
        else:
            _enter_existing(stack, spec, project)
        yield _capacity()


def _running() -> bool:
    ray = sys.modules.get("ray")
    return bool(ray is not None and ray.is_initialized())


def _capacity() -> Capacity:
    import ray

    total = ray.cluster_resources()
    address = ray.get_runtime_context().gcs_address
    return Capacity(cpus=total.get("CPU", 0.0), gpus=total.get("GPU", 0.0), address=address)


def _enter_local(
    stack: ExitStack, spec: ClusterSpec, project: Path | None, notify: Notify
) -> None:
    mark, folder = secrets.token_hex(8), _folder()
    stack.enter_context(reaped(mark, folder))
    for attempt in range(1, _ATTEMPTS + 1):
        port = free_port()
        try_ = stack.enter_context(ExitStack())
        try_.enter_context(applied(for_new(project, mark, folder, port)))
        ensure_token()
        try:
            _init(address="local", **_resources(spec))
        except Exception as error:  # Ray raises a bare Exception here
            _shutdown()
            try_.close()
            if attempt == _ATTEMPTS:
                raise _not_started(error, folder) from error
            warn(notify, f"Ray did not start ({_first_line(error)}); trying once more")
        else:
            try_.callback(_shutdown)
            return


def _enter_existing(stack: ExitStack, spec: ClusterSpec, project: Path | None) -> None:
    if spec.cpus is not None or spec.gpus is not None or spec.object_store_mb is not None:
        raise UsageError(
            Problem(
                rule="cluster.cpus, gpus and object_store_mb size a local Ray only",
                got=f"them with address {spec.address!r}",
                cure="Leave them out, or set cluster.address to local.",
            )
        )
    require_guard(spec.address)
    environment = for_existing(project, spec.address)
    stack.enter_context(applied(environment))
    paths = {key: environment[key] for key in ("PYTHONPATH",) if key in environment}
    try:
        _init(address=spec.address, runtime_env={"env_vars": paths} if paths else None)
    except Exception as error:
        _shutdown()
        raise RaymillError(
            Problem(
                rule=f"a Ray cluster must answer at cluster.address {spec.address!r}",
                got=_first_line(error),
                cure="Start it with its token (RAY_AUTH_MODE=token ray start --head), give this "
                "machine the same ~/.ray/auth_token, or set cluster.address to local.",
            )
        ) from error
    stack.callback(_shutdown)


def _resources(spec: ClusterSpec) -> dict[str, object]:
    store = spec.object_store_mb
    return {
        "num_cpus": spec.cpus,
        "num_gpus": spec.gpus,
        "object_store_memory": None if store is None else store * 2**20,
        "include_dashboard": False,  # eight processes that nothing here asks; where Ray looks for
        "dashboard_port": free_port(),  # it all the same must not be another instance's
        "_node_ip_address": "127.0.0.1",
    }


def _init(**arguments: object) -> None:
    """`ray.init`, quiet, with the token mode and the loopback address set before it."""
    with _own_signals(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray = _import_ray()
        with _any_agent_port():
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **arguments)


@contextmanager
def _any_agent_port() -> Iterator[None]:
    """Ray's agents listen on port 52365 unless told otherwise, and `ray.init` has no word for it:
    a second instance of the host would wait for the port in vain."""
    from ray._private import parameter

    own = parameter.RayParams
    parameter.RayParams = partial(own, dashboard_agent_listen_port=0)
    try:
        yield
    finally:
        parameter.RayParams = own


def _import_ray() -> ModuleType:
    """Ray, and what it read from the environment if it was imported before, read again."""
    ray = import_module("ray")
    ray_constants: Any = import_module("ray._private.ray_constants")
    raylet: Any = import_module("ray._raylet")
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()
    ray_constants.ENABLE_RAY_CLUSTER = (
        os.environ.get(ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, "1") != "0"
    )
    return ray


def _shutdown() -> None:
    ray = sys.modules.get("ray")
    if ray is not None:
        with _own_signals():
            ray.shutdown()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM when it is imported; the program's own handler stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def _folder() -> Path:
    """A new private folder; in /tmp, because the path of a unix socket has 107 bytes."""
    base = "/tmp" if Path("/tmp").is_dir() else None
    return Path(tempfile.mkdtemp(prefix="raymill-", dir=base))


@contextmanager
def reaped(mark: str, folder: Path) -> Iterator[None]:
    """A reaper beside the block; it ends what is left of the session when the block is over."""
    script = files("raymill").joinpath("reaper.py")
    environment = {key: value for key, value in os.environ.items() if key != MARK}
    kept = [] if os.environ.get("RAYMILL_DEBUG") else [str(folder)]
    reaper = subprocess.Popen(
        [sys.executable, "-I", "-S", str(script), f"{MARK}={mark}", *kept],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=environment, cwd="/", start_new_session=True,
    )
    assert reaper.stdin is not None
    try:
        yield
    finally:
        reaper.stdin.close()
        reaper.wait(_REAPER_S)


def _not_started(error: Exception, folder: Path) -> RaymillError:
    """The folder goes when the session ends, so the logs are copied."""
    cure = "Often memory or disk space is short, or the packages differ from constraints.txt."
    if sessions := sorted(folder.glob("session_2*/logs")):
        logs = Path(tempfile.mkdtemp(prefix="raymill-logs-"))
        shutil.copytree(sessions[-1], logs, dirs_exist_ok=True, ignore_dangling_symlinks=True)
        cure += f" Ray's logs are in {logs}."
    return RaymillError(
        Problem(rule="Ray must start on this machine", got=_first_line(error), cure=cure)
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"
