"""Looks at this machine: packages, Ray's token, memory, disks, GPUs, limits."""

from __future__ import annotations

import importlib
import os
import platform
import resource
import shutil
import stat
import sys
import sysconfig
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import psutil

from .environment import token_file
from .findings import Finding, bad, doubtful, good
from .probe import GuardState, guard
from .processes import leftovers, listeners, orphans

GB = 2**30
OPEN_FILES, FEW_OPEN_FILES = 8192, 1024
DISK_WARN, DISK_FAIL = 5 * GB, 1 * GB
MEMORY_WARN, MEMORY_FAIL = 2 * GB, GB // 2
UNSAFE = ("AUTOLOAD", "ALLOW_UNSAFE")  # Ray Data would run code that a data file holds


def look(home: Path) -> list[Finding]:
    """Every finding about this machine, for a raymill whose state lives in `home`."""
    checks: list[Callable[[], list[Finding]]] = [
        python, packages, exporter, token, attached, environment, ports, orphaned,
        lambda: disks(home), memory, gpus, open_files,
    ]
    return [finding for check in checks for finding in check()]


def python() -> list[Finding]:
    text = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        return [bad("python", text, "raymill needs Python 3.11-3.13.")]
    if sys.platform != "linux":
        return [doubtful("python", text, "raymill is tested on Linux only.")]
    return [good("python", text)]


def packages() -> list[Finding]:
    """Each required package against the versions that raymill takes."""
    try:
        required = requires("raymill") or []
    except PackageNotFoundError:
        return [doubtful("packages", "raymill runs from a folder, not from an installation",
                         "Install it: pip install -c constraints.txt raymill")]
    found = [problem for line in required if (problem := _unmet(line))]
    if found:
        return found
    shown = ", ".join(f"{name} {version(name)}" for name in ("ray", "torch", "optuna", "mlflow"))
    return [good("packages", f"raymill {version('raymill')} with {shown}")]


def _unmet(line: str) -> Finding | None:
    from packaging.requirements import Requirement

    wanted = Requirement(line)
    if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
        return None
    try:
        has = version(wanted.name)
    except PackageNotFoundError:
        return bad("packages", f"{wanted.name}{wanted.specifier} is not installed",
                   f"pip install -c constraints.txt '{wanted.name}{wanted.specifier}'")
    if wanted.specifier.contains(has, prereleases=True):
        return None
    return bad("packages", f"{wanted.name} {has} is installed, {wanted.specifier} is needed",
               f"pip install -c constraints.txt '{wanted.name}{wanted.specifier}'")


def exporter() -> list[Finding]:
    """Ray's agent can't start where an older OpenTelemetry SDK sits beside newer exporters; it
    says no more than that the node timed out."""
    try:
        importlib.import_module("opentelemetry.exporter.prometheus")
    except Exception as error:  # noqa: BLE001 - whatever breaks here breaks Ray
        return [bad("opentelemetry", f"its Prometheus exporter can't be imported: {error}",
                    "Install one patch version of the family: "
                    "pip install -c constraints.txt --force-reinstall opentelemetry-sdk "
                    "opentelemetry-exporter-prometheus")]
    return [good("opentelemetry", f"sdk {version('opentelemetry-sdk')}, its exporter imports")]


def token() -> list[Finding]:
    """Whether Ray asks for a token that only this user can read."""
    if os.environ.get("RAY_AUTH_MODE", "token") != "token":
        return [bad("authentication", f"RAY_AUTH_MODE is {os.environ['RAY_AUTH_MODE']}: who "
                    "reaches Ray's ports runs code as you", "unset RAY_AUTH_MODE")]
    if os.environ.get("RAY_AUTH_TOKEN"):
        return [doubtful("authentication", "the token is in RAY_AUTH_TOKEN, which every child "
                         "process inherits and logs may show",
                         "Put it into a file (0600) and name that by RAY_AUTH_TOKEN_PATH.")]
    path = token_file()
    if not path.exists():
        return [good("authentication", f"a token will be made at the first start, in {path}")]
    about = path.stat()
    if about.st_uid != os.getuid():
        return [bad("authentication", f"the token {path} is another user's",
                    "Set RAY_AUTH_TOKEN_PATH to a file of yours.")]
    if stat.S_IMODE(about.st_mode) & 0o077:
        return [bad("authentication", f"others can read the token {path}", f"chmod 600 {path}")]
    return [good("authentication", f"Ray asks for a token that only you can read ({path})")]


def attached() -> list[Finding]:
    """Whether the cluster that RAY_ADDRESS names asks for its token."""
    address = os.environ.get("RAY_ADDRESS", "")
    if ":" not in address or "://" in address:
        return []
    found = guard(address)
    if found is GuardState.OPEN:
        return [bad("cluster", f"{address} answers without a token",
                    "Start it with RAY_AUTH_MODE=token; unset RAY_ADDRESS until then.")]
    if found is GuardState.SILENT:
        return [bad("cluster", f"nothing answers at RAY_ADDRESS {address}",
                    "unset RAY_ADDRESS, or start the cluster.")]
    return [good("cluster", f"{address} asks for its token")]


def environment(variables: Mapping[str, str] = os.environ) -> list[Finding]:
    """Settings that let data files run code."""
    switched = sorted(
        name for name, value in variables.items()
        if name.startswith("RAY_DATA_") and any(part in name for part in UNSAFE)
        and value.lower() not in ("", "0", "false")
    )
    if switched:
        return [bad("environment", f"{', '.join(switched)}: Ray would run code from data files",
                    f"unset {' '.join(switched)}")]
    return [good("environment", "no setting lets data files run code")]


def ports() -> list[Finding]:
    """What Ray, MLflow and raymill of this user listen on."""
    found = listeners()
    open_ = [each for each in found if not each.loopback]
    if open_:
        shown = ", ".join(f"{each.address} ({each.name} {each.pid})" for each in open_[:6])
        return [bad("ports", f"open beyond this machine: {shown}",
                    "Bind to 127.0.0.1, or close the ports to others by a firewall.")]
    count = f"{len(found)} ports, all on loopback" if found else "nothing listens"
    return [good("ports", count)]


def orphaned() -> list[Finding]:
    """Processes and folders of sessions whose owner is gone."""
    findings = []
    if pids := orphans():
        listed = " ".join(map(str, pids))
        findings.append(doubtful("orphans", f"{len(pids)} processes of runs that ended: {listed}",
                                 f"kill -9 {listed}"))
    if folders := leftovers():
        listed = " ".join(map(str, folders))
        findings.append(doubtful(
            "orphans", f"{len(folders)} folders of raymill that no process here works in",
            f"If no other container uses this /tmp: rm -r {listed}"))
    return findings or [good("orphans", "no process or folder of an ended run")]


def disks(home: Path) -> list[Finding]:
    return [_free("disk", place, shutil.disk_usage(place).free)
            for place in dict.fromkeys([_existing(home), Path("/tmp")])]


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _free(check: str, place: Path, free: int) -> Finding:
    text = f"{free / GB:.1f} GB free at {place}"
    cure = "Remove what is not needed, or set RAYMILL_HOME to another disk."
    if free < DISK_FAIL:
        return bad(check, text, cure)
    return doubtful(check, text, cure) if free < DISK_WARN else good(check, text)


def memory() -> list[Finding]:
    """Memory, and the shared memory that Ray keeps objects in (30 % of memory by default)."""
    total, free = psutil.virtual_memory().total, psutil.virtual_memory().available
    text = f"{free / GB:.1f} of {total / GB:.1f} GB memory available"
    if limit := _cgroup_limit():
        text += f", this container may use {limit / GB:.1f} GB"
        free = min(free, limit)
    cure = "End other programs, or lower cluster.object_store_mb and tuning.concurrency."
    found = [bad("memory", text, cure) if free < MEMORY_FAIL
             else doubtful("memory", text, cure) if free < MEMORY_WARN else good("memory", text)]
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared)
        text = f"{size.free / GB:.1f} of {size.total / GB:.1f} GB shared memory free"
        short = size.free < 0.3 * (limit or total)
        found.append(doubtful(
            "shared memory", f"{text}, less than the 30 % of memory that Ray takes for objects",
            "Give the container more (docker run --shm-size=4g), or set cluster.object_store_mb "
            "below it.") if short else good("shared memory", text))
    return found


def _cgroup_limit() -> int | None:
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < psutil.virtual_memory().total:
            return int(text)
    return None


def gpus() -> list[Finding]:
    """Whether torch sees the GPUs that the machine has."""
    import torch

    devices = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        return [good("gpu", f"{torch.cuda.device_count()} visible: {', '.join(sorted(names))}")]
    if not devices:
        return [good("gpu", "none; raymill runs on the CPU")]
    cure = "Install a torch for CUDA." if torch.version.cuda is None else (
        "Look at nvidia-smi: the driver may be too old for this torch, or CUDA_VISIBLE_DEVICES "
        f"({os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}) hides them.")
    build = sysconfig.get_platform() if torch.version.cuda is None else torch.version.cuda
    return [doubtful("gpu", f"{devices} devices, but torch {torch.__version__} ({build}) can't "
                     "use them", cure)]


def open_files() -> list[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{soft:,} open files allowed (ulimit -n)"
    cure = f"ulimit -n {min(hard, 65536) if hard > 0 else 65536}"
    if soft < FEW_OPEN_FILES:
        return [bad("open files", text, cure)]
    return [doubtful("open files", text, cure) if soft < OPEN_FILES else good("open files", text)]
