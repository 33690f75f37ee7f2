"""The spec of the Ray cluster that a run uses."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raymill.specs import Part


class ClusterSpec(Part):
    """`address: local` starts Ray on this machine; `auto` or `host:port` attaches to a cluster."""

    address: str = "local"
    cpus: Annotated[int, Field(ge=1)] | None = None  # local only; None: all
    gpus: Annotated[int, Field(ge=0)] | None = None
    object_store_mb: Annotated[int, Field(ge=80)] | None = None
