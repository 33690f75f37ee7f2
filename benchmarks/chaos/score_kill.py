"""`raymill score`'s process killed with SIGKILL at seeded moments, and started again until it ends.

1 M rows, three kills: after a seeded number of parts was taken down. What ends must hold every row's
id exactly once, in parts whose hashes are the manifest's, and equal an unbroken scoring's answers.
`lost` counts ids that are missing or there twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import Survival, sized
from benchmarks.score import make_bundle, make_rows

KILLS, SEED = 3, 7
SCORE = """
import sys
from pathlib import Path
from benchmarks.score import version_of
from raymill.cluster.local import ray_session
from raymill.cluster.spec import ClusterSpec
from raymill.serving.score import score
from raymill.training.bundle import Bundle
folder = Path(sys.argv[1])
with ray_session(ClusterSpec()):
    score(version_of(Bundle.open(folder / "bundle")), [str(folder / "rows.parquet")],
          Path(sys.argv[2]), folder)
"""


def start(folder: Path, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SCORE, str(folder), str(out)],
                            cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL)


def parts(out: Path) -> int:
    lines = out / "_raymill" / "done.jsonl"
    return lines.read_bytes().count(b"\n") if lines.exists() else 0


def answers(out: Path) -> pa.Table:
    table = pa.concat_tables([pq.read_table(path) for path in sorted(out.glob("part-*"))])
    return table.sort_by("id")


def hashes_hold(out: Path) -> bool:
    """Whether the manifest's hashes are those of the files."""
    manifest = json.loads((out / "_raymill" / "manifest.json").read_text())
    return all(hashlib.sha256((out / file["name"]).read_bytes()).hexdigest() == file["sha256"]
               for file in manifest["files"])


def run() -> Survival:
    rows, draw = sized(1_000_000, 400_000), random.Random(SEED)
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name), Path(name) / "out"
        make_bundle(folder / "bundle")
        make_rows(folder / "rows.parquet", rows)
        killed: list[int] = []
        for _ in range(KILLS):
            before, process = parts(out), start(folder, out)
            more = draw.randint(1, 3)
            while process.poll() is None and parts(out) < before + more:
                time.sleep(0.005)
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                killed.append(parts(out))
            process.wait()
        last = start(folder, out).wait()
        clean = start(folder, folder / "clean").wait()
        ours, expected = answers(out), answers(folder / "clean")
        same = last == clean == 0 and hashes_hold(out) and bool(
            ours.combine_chunks().equals(expected.combine_chunks()))
    ids, counts = np.unique(ours["id"].to_numpy(), return_counts=True)
    lost = rows - len(ids) + int((counts - 1).sum())
    return Survival(
        name="score-kill", fault="SIGKILL of the scoring's process after a seeded number of parts",
        injected=KILLS, survived=len(killed) if same else 0, lost=lost,
        goal="every row once, equal to an unbroken scoring",
        details={"rows": rows, "seed": SEED, "parts_at_kill": killed, "equal": same},
    )

