"""A project on scikit-learn's breast cancer table, run once for this folder's tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Raymill = Callable[..., subprocess.CompletedProcess[str]]
SETTINGS = ("tuning.trials=3", "training.epochs=6", "objective.bootstrap=200")


def sets(*more: str) -> list[str]:
    return [part for text in (*SETTINGS, *more) for part in ("--set", text)]


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder, with table.csv in it."""
    from sklearn.datasets import load_breast_cancer

    place = tmp_path_factory.mktemp("road")
    frame = load_breast_cancer(as_frame=True).frame
    frame["target"] = frame["target"].map({0: "malignant", 1: "benign"})
    frame.to_csv(place / "table.csv", index=False)
    return place


@pytest.fixture(scope="package")
def raymill(folder: Path) -> Iterator[Raymill]:
    """Runs `raymill ...` in the working folder; services still running at the end are stopped."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "raymill", *arguments], cwd=folder, text=True,
            capture_output=True, timeout=280, check=False,
            env={**os.environ, "RAYMILL_HOME": str(folder / ".raymill")},
        )

    yield call
    call("serve", "stop")


@pytest.fixture(scope="package")
def ran(raymill: Raymill) -> dict[str, Any]:
    """The document of `raymill run --json`."""
    done = raymill("init", "tumour", "--data", "table.csv", "--target", "target")
    assert done.returncode == 0, done.stderr
    done = raymill("run", "tumour/raymill.yaml", "--json", *sets())
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document
