"""What Ray reads from the environment: loopback only, a token, its own folder, quick recovery."""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raymill.errors import Problem, RaymillError

MARK = "RAYMILL_SESSION"  # in every process of a session; see reaper.py
MARKS = (MARK, "RAYMILL_SERVICE")  # the latter: of a service

# Only what the user has not set.
DEFAULTS = {
    "RAY_AUTH_MODE": "token",
    # The switch that makes Ray take 127.0.0.1 for the node's address on Linux too: all that
    # listens (GCS, raylet, workers, agents, metrics) then binds to loopback.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a task that asks for no GPU sees none
    "RAY_DEDUP_LOGS": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # a report reaches the driver within this time
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_preload_python_modules": "raymill.worker_start",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads must not hold the CPUs that Ray shares out
    "SPT_NOENV": "1",  # process titles must not overwrite the environment that holds MARK
}


@contextmanager
def applied(changes: dict[str, str]) -> Iterator[None]:
    """`changes` in `os.environ` for the time of the block."""
    before = {key: os.environ.get(key) for key in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def for_new(project: Path | None, mark: str, folder: Path, port: int) -> dict[str, str]:
    """The changes for a Ray instance of our own, whose GCS listens on `port`.

    RAY_ADDRESS makes its processes talk to it and to no other instance of this host.
    """
    changes = {key: value for key, value in DEFAULTS.items() if key not in os.environ}
    changes |= {
        MARK: mark,
        "RAY_GCS_SERVER_PORT": str(port),
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "RAY_TMPDIR": os.environ.get("RAY_TMPDIR") or str(folder),
        "RAY_DATA_LOGGING_CONFIG": str(_data_logging(folder)),
    }
    return changes | python_path(project)


def for_existing(project: Path | None, address: str) -> dict[str, str]:
    """The changes for a client of a cluster that others started, whose GCS is at `address`.

    On another machine's cluster, this node must not take 127.0.0.1 for its address; on one of
    loopback, it must.
    """
    skipped = () if address.startswith("127.0.0.1:") else ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",)
    changes = {
        key: value for key, value in DEFAULTS.items()
        if key not in os.environ and key not in skipped
    }
    return changes | python_path(project)


def _data_logging(folder: Path) -> Path:
    """Ray Data's own logging with all of it in its file, and errors only on the screen."""
    config = {
        "formatters": {"ray": {"class": "ray._common.formatters.TextFormatter"}},
        "handlers": {
            "file": {
                "class": "ray.data._internal.logging.SessionFileHandler", "formatter": "ray",
                "filename": "ray-data.log",
            },
            "console": {
                "class": "ray._private.log.PlainRayHandler", "formatter": "ray",
                "level": "ERROR",
            },
        },
        "loggers": {
            "ray.data": {"level": "DEBUG", "handlers": ["file", "console"], "propagate": False}
        },
    }
    path = folder / "data-logging.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def python_path(project: Path | None) -> dict[str, str]:
    """PYTHONPATH with the user's project first, so that workers import its modules."""
    if project is None:
        return {}
    path = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(project.resolve()), *([path] if path else [])])}


def token() -> str:
    """Ray's token, as its clients send it; empty where there is none."""
    if value := os.environ.get("RAY_AUTH_TOKEN"):
        return value
    path = token_file()
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def ensure_token() -> None:
    """A token that only its owner reads, in place before anything listens.

    Ray itself writes `~/.ray/auth_token` readable by all; an old file of that kind is tightened.

    Raises:
        RaymillError: the file can't be written.
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return
    path = token_file()
    try:
        if path.exists():
            if path.stat().st_uid == os.getuid() and stat.S_IMODE(path.stat().st_mode) & 0o077:
                path.chmod(0o600)
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(path, secrets.token_hex(32))
    except OSError as error:
        raise RaymillError(
            Problem(
                rule="Ray's token must be in a file that only you can read",
                got=f"{error.strerror or error}: {path}",
                cure="Set RAY_AUTH_TOKEN_PATH to a file in a folder that you can write.",
            )
        ) from error


def token_file() -> Path:
    """Where Ray looks for its token when RAY_AUTH_TOKEN is not set."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def _write_new(path: Path, token: str) -> None:
    """Another session may write the same file at the same time: the first one stays."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(token)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink()
