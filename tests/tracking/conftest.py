"""Bundles to register, and one store for the tests of a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from raymill.tracking.home import Home
from raymill.training.bundle import Bundle
from raymill.training.files import write_folder

CONTRACT = {
    "target": "fraud", "task": "binary", "classes": ["no", "yes"],
    "columns": {
        "amount": {"type": "float64", "kind": "numeric", "min": 0, "max": 100},
        "count": {"type": "int64", "kind": "numeric", "nullable": True, "min": 1, "max": 4},
        "shop": {"type": "string", "kind": "categorical", "values": ["web", "till"]},
        "name": {"type": "string", "kind": "categorical", "values": ["Ada"], "sensitive": True},
        "time": {"type": "timestamp", "kind": "datetime", "min": "2026-01-01T00:00:00"},
        "id": {"type": "string", "kind": "ignore"},
        "fraud": {"type": "string", "kind": "categorical", "values": ["no", "yes"],
                  "closed": True},
    },
}
MakeBundle = Callable[[float], Bundle]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Making MLflow's store takes seconds, so the tests of a file share one."""
    return Home.find(tmp_path_factory.mktemp("tracking") / "home")


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """Whole bundles that differ in their weight; their transform is empty."""

    def make(weight: float) -> Bundle:
        model = {"format": 1, "family": "linear", "params": {}, "schema": {}}
        parts = {"model": model, "transform": {}, "contract": CONTRACT, "profile": {},
                 "objective": {"threshold": 0.5}, "info": {}}

        def fill(folder: Path) -> None:
            save_file({"weight": torch.tensor([weight])}, folder / "model.safetensors")
            for name, part in parts.items():
                (folder / f"{name}.json").write_text(json.dumps(part))

        about = {"kind": "bundle", "format": 1}
        return Bundle.open(write_folder(tmp_path / f"bundle-{weight}", fill, about))

    return make
