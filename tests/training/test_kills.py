"""A run killed anywhere around a checkpoint goes on and ends with the same weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from raymill.training.checkpoint import load_weights, of_epoch

SCRIPT = Path(__file__).with_name("two_ranks.py")
POINTS = ["artifact.before_manifest", "artifact.before_rename", "artifact.after_rename",
          "train.after_report"]


def run(folder: Path, fail: str = "") -> int:
    """The exit status of a run of one rank with 101 rows and 3 epochs in its own process."""
    folder.mkdir(exist_ok=True)
    (folder / "rendezvous").unlink(missing_ok=True)
    (folder / "job.json").write_text(json.dumps({"epochs": 3}))
    command = [sys.executable, str(SCRIPT), "0", str(folder), "101"]
    environment = {**os.environ, "RAYMILL_FAIL": fail}
    return subprocess.run(command, env=environment, timeout=150, check=False).returncode


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("clean")
    assert run(folder) == 0
    return load_weights(of_epoch(folder / "checkpoints", 3))


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_ends_with_the_same_weights(
    tmp_path: Path, clean: dict[str, torch.Tensor], point: str
) -> None:
    assert run(tmp_path / "run", f"{point}:kill@2") == -signal.SIGKILL
    assert run(tmp_path / "run") == 0
    weights = load_weights(of_epoch(tmp_path / "run" / "checkpoints", 3))
    assert all(torch.equal(weights[name], clean[name]) for name in clean)
    left = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert all(name.startswith("ckpt-") for name in left), left
