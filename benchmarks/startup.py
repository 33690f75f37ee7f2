"""Seconds from `raymill train` to the first optimizer step, beside bare Ray Train doing the same.

Both are commands of their own that start Ray on two CPUs, read the same Parquet file and train
28-256-256-1 on one worker, batch 1024; the model itself writes down when it is called after its
first step. The reference (`bare_ray_train.py`) is Ray's own guide: `read_parquet`, `TorchTrainer`,
`iter_torch_batches`. Ours checks, splits and transforms the data, and keeps a journal and an MLflow
store besides: `ours` is a run in a new home, which has seen nothing of the data; the details have
runs in a home that has (as from the second run on), and what the time goes on.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import Figure, sized, spread
from benchmarks.nets import FEATURES

ROUNDS = 4
REFERENCE = Path(__file__).with_name("bare_ray_train.py")
SPEC = """
name: startup
data: {source: rows.parquet, target: y}
model: {family: "benchmarks.nets:marking", mark: MARK}
training: {epochs: 1, batch_size: 1024, gpu: never}
tuning: {trials: 0}
cluster: {cpus: 2}
"""
_LINE = re.compile(r"\[\s*([\d.]+)s\]\s+(.*)")


def write_rows(rows: int, folder: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, FEATURES)).astype(np.float32)
    columns = {f"x{i}": x[:, i] for i in range(FEATURES)}
    y = np.where(x[:, 0] + rng.standard_normal(rows) > 0, "yes", "no")
    pq.write_table(pa.table({**columns, "y": y}), folder / "rows.parquet")


def until_marked(command: list[str], mark: Path, folder: Path) -> tuple[float, float, str]:
    """Seconds from the start of a command to its model's mark and to its end, and its stderr."""
    mark.unlink(missing_ok=True)
    root = Path(__file__).parents[1]
    paths = [str(root), str(root / "src"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "RAYMILL_HOME": str(folder / "home"),
                   "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    began = time.time()
    ended = subprocess.run(command, cwd=folder, env=environment, timeout=240, check=False,
                           capture_output=True, text=True)
    if ended.returncode != 0:
        raise RuntimeError(f"{command} failed:\n{ended.stderr[-3000:]}")
    return float(mark.read_text()) - began, time.time() - began, ended.stderr


def breakdown(first_step: float, total: float, stderr: str) -> dict[str, float]:
    """When what began, in seconds from the start of the command. The clock of the lines starts
    with the command's own imports behind it, which are the difference to the end."""
    lines = [(float(m[1]), m[2]) for m in map(_LINE.match, stderr.splitlines()) if m]
    late = total - lines[-1][0] if lines else 0.0
    found = {text[:60]: seconds for seconds, text in lines if "epoch" not in text}
    return {**found, "first step": first_step, "command's own start and end": late}


def run() -> Figure:
    times: dict[str, list[float]] = {"bare": [], "ours": [], "again": []}
    parts: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(sized(100_000, 4096), folder)
        mark = folder / "mark"
        (folder / "spec.yaml").write_text(SPEC.replace("MARK", str(mark)))
        guide = [sys.executable, str(REFERENCE), str(folder / "rows.parquet"), str(mark)]
        for number in range(ROUNDS):
            for kind in ("ours", "again"):
                command = [sys.executable, "-m", "raymill", "train", "spec.yaml",
                           "--set", f"training.seed={number + ROUNDS * (kind == 'again')}"]
                seconds, total, said = until_marked(command, mark, folder)
                times[kind].append(seconds)
                parts[kind] = breakdown(seconds, total, said)
            shutil.rmtree(folder / "home")
            times["bare"].append(until_marked(guide, mark, folder)[0])
    ours, again, bare = (spread(times[name])["median"] for name in ("ours", "again", "bare"))
    return Figure(
        name="startup", unit="s to the first step", ours=ours, reference=bare,
        reference_is="bare Ray Train", goal="ratio <= 1.0", holds=ours <= bare,
        details={**{name: spread(values) for name, values in times.items()},
                 "of the reference, again": again / bare, "goes on": parts},
    )
