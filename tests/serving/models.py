"""A small linear model as a bundle, for the tests of serving; not a test itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch

from raymill.data.contract import ColumnRule, Contract
from raymill.data.transform import Category, Number, Transform
from raymill.training.bundle import Bundle, write
from raymill.training.families import build
from raymill.training.job import make_job
from raymill.training.spec import ModelSpec, TrainingSpec

Change = Callable[[torch.Tensor], torch.Tensor]


def small_bundle(
    path: Path, key: list[str] | None = None, change: Change = lambda weight: weight
) -> Bundle:
    """x in 0..10 and a colour to no or yes; `key` names columns that identify a row. `change` makes
    another model of the same weights."""
    columns = {name: ColumnRule(type="int64", kind="ignore") for name in key or ()}
    columns |= {
        "x": ColumnRule(type="float64", kind="numeric", min=0, max=10),
        "colour": ColumnRule(type="string", kind="categorical", nullable=True),
        "y": ColumnRule(type="string", kind="categorical", values=["no", "yes"], closed=True),
    }
    contract = Contract(target="y", task="binary", classes=["no", "yes"], columns=columns,
                        key=key or [])
    transform = Transform(
        task="binary", target="y", classes=("no", "yes"), target_mean=0, target_std=1,
        numbers=(Number("x", 5.0, False, (0.0, 10.0), (-2.0, 2.0)),), dates=(),
        categories=(Category("colour", ("red", "blue")),), image_column=None, image=None,
    )
    job = make_job(ModelSpec(family="linear"), TrainingSpec(), None, transform.schema, None)
    torch.manual_seed(0)
    weights = build(job.family, job.params, job.schema).state_dict()
    weights = {name: change(torch.randn_like(weight)) for name, weight in weights.items()}
    prepared = SimpleNamespace(transform=transform, contract=contract, profile={})
    return write(path, job, weights, prepared, {"threshold": 0.5}, {})  # type: ignore[arg-type]


def version_of(bundle: Bundle, digest: str | None = None) -> SimpleNamespace:
    """What the registry says of a bundle."""
    return SimpleNamespace(
        name="toy", version=7, digest=digest or bundle.digest, bundle_path=bundle.path
    )
