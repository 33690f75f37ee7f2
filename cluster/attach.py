"""Which cluster a spec or a command means."""

from __future__ import annotations

import os
from pathlib import Path

from raymill.errors import UsageError

from . import state
from .spec import ClusterSpec

POINTER = "ray_current_cluster"  # where `ray start` says its address


def located(spec: ClusterSpec, home: Path) -> ClusterSpec:
    """`spec` with a concrete address.

    A spec that states neither an address nor the size of a local Ray takes RAY_ADDRESS. `auto` is
    RAY_ADDRESS, else the cluster that `raymill cluster up` started for `home`, else what
    `ray start` started on this machine.

    Raises:
        UsageError: `auto`, and there is no cluster; or an address of Ray Client.
    """
    said = os.environ.get("RAY_ADDRESS", "")
    sized = {"address", "cpus", "gpus", "object_store_mb"} & spec.model_fields_set
    address = spec.address
    if address == "local":
        address = said if said and not sized else "local"
    if address == "auto":
        address = said if said and said != "auto" else _running(home)
    if address.startswith("ray://"):
        raise UsageError(f"raymill attaches to a cluster from inside it, but got {address}",
                         cure="Send it as a job: raymill submit SPEC --address http://HOST:8265")
    return spec if address == spec.address else spec.model_copy(update={"address": address})


def job_url(address: str | None, home: Path) -> str:
    """The URL of the job API: `address`, else RAY_API_SERVER_ADDRESS, else of this home's cluster.

    Raises:
        UsageError: there is none.
    """
    known = state.read(home)
    url = address or os.environ.get("RAY_API_SERVER_ADDRESS") or (
        known.dashboard if known is not None and known.phase == "ready" else None)
    if url is None:
        raise UsageError("a job needs a cluster", cure="Start one on this machine: raymill cluster "
                         "up; or name one: --address http://127.0.0.1:8265")
    return url


def is_ours(url: str, home: Path) -> bool:
    """Whether `url` is of the cluster that was started for `home` on this machine, which sees the
    same files as we do."""
    known = state.read(home)
    return known is not None and known.dashboard == url.rstrip("/")


def _running(home: Path) -> str:
    known = state.read(home)
    if known is not None and known.phase == "ready":
        return known.address
    pointer = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / POINTER
    if pointer.is_file():
        return pointer.read_text().strip()
    raise UsageError("cluster.address auto needs a cluster",
                     cure="Start one: raymill cluster up; or set RAY_ADDRESS.")
