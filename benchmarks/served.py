"""A model to serve without any training, and the service of it, for the figures of serving."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import torch

from benchmarks.nets import FEATURES
from raymill.data.contract import ColumnRule, Contract
from raymill.data.transform import Number, Transform
from raymill.events import ignore
from raymill.ports import free_port
from raymill.serving.environment import MARK
from raymill.serving.service import start_detached, stop
from raymill.serving.spec import ServingSpec
from raymill.serving.state import ServiceStatus
from raymill.training.bundle import Bundle, write
from raymill.training.families import build
from raymill.training.job import make_job
from raymill.training.spec import ModelSpec, TrainingSpec

NAMES = [f"x{i}" for i in range(FEATURES)]


@dataclass(frozen=True)
class Version:
    """What a service asks of a registered version."""

    name: str
    version: int
    digest: str
    bundle_path: Path


def plain_bundle(folder: Path, *, width: int = 256) -> Bundle:
    """An MLP 28-width-width-1 with weights by chance; every number goes through 256 knots."""
    rule = ColumnRule(type="float64", kind="numeric", min=-1000, max=1000)
    columns = dict.fromkeys(NAMES, rule) | {
        "y": ColumnRule(type="string", kind="categorical", values=["no", "yes"], closed=True)}
    contract = Contract(target="y", task="binary", classes=["no", "yes"], columns=columns)
    knots = tuple(np.linspace(-4, 4, 256).tolist())
    transform = Transform(
        task="binary", target="y", classes=("no", "yes"), target_mean=0, target_std=1,
        numbers=tuple(Number(name, 0.0, False, knots, knots) for name in NAMES), dates=(),
        categories=(), image_column=None, image=None)
    model = ModelSpec.model_validate(
        {"family": "mlp", "width": width, "depth": 2, "numeric_embedding": "none"})
    job = make_job(model, TrainingSpec(), None, transform.schema, None)
    torch.manual_seed(0)
    weights = build(job.family, job.params, job.schema).state_dict()
    prepared: Any = SimpleNamespace(transform=transform, contract=contract, profile={})
    return write(folder / "bundle", job, weights, prepared, {"threshold": 0.5}, {})


def rows_of(count: int) -> pa.Table:
    """Rows for `plain_bundle`, the same each time."""
    values = np.random.default_rng(0).normal(size=(FEATURES, count)).round(6)
    return pa.table(dict(zip(NAMES, values, strict=True)))


def json_body(count: int) -> bytes:
    return json.dumps({"rows": rows_of(count).to_pylist()}, separators=(",", ":")).encode()


def arrow_body(count: int) -> bytes:
    sink = pa.BufferOutputStream()
    table = rows_of(count)
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def two() -> dict[str, int]:
    """`replicas` for two of them, where there are CPUs."""
    count = min(2, os.cpu_count() or 1)
    return {"min": count, "max": count}


def split_body(count: int) -> bytes:
    """The same rows in MLflow's `dataframe_split`."""
    rows = rows_of(count)
    data = [list(row.values()) for row in rows.to_pylist()]
    return json.dumps({"dataframe_split": {"columns": rows.column_names, "data": data}}).encode()


@contextmanager
def service(
    bundle: Bundle, home: Path, *, cluster: str = "", **spec: Any
) -> Iterator[ServiceStatus]:
    """The service of a bundle, answering; on a Ray of its own, or in a cluster."""
    settings = ServingSpec.model_validate({"port": free_port(), "replicas": two(), **spec})
    home.mkdir(mode=0o700, exist_ok=True)
    version = Version("bench", 1, bundle.digest, bundle.path)
    status = start_detached(version, settings, home, ignore, cluster=cluster)
    try:
        yield status
    finally:
        stop(home, "bench")


def port_of(status: ServiceStatus) -> int:
    return int(status.url.rsplit(":", 1)[1])


def replicas_of(status: ServiceStatus) -> list[psutil.Process]:
    """The service's replicas, by their marks."""
    found = []
    for process in psutil.process_iter():
        try:
            title = " ".join(process.cmdline())
            if "ServeReplica" in title and process.environ().get(MARK) == status.folder:
                found.append(process)
        except psutil.Error:
            continue
    return found
