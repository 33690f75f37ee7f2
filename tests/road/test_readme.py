"""What the README says to type works as typed."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from raymill.cli.main import build_parser

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "README.md", ROOT / "docs" / "cluster.md",
        *sorted((ROOT / "examples").glob("*/README.md"))]


def commands(path: Path) -> list[str]:
    """The lines of the `sh` blocks of a page, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("page", DOCS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_raymill_command_of_the_docs_parses(page: Path) -> None:
    found = [line for line in commands(page) if line.startswith("raymill ")]
    assert found
    for line in found:
        build_parser().parse_args(shlex.split(line)[1:])


def test_make_targets_of_the_readme_exist() -> None:
    made = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {line.split()[1] for line in commands(ROOT / "README.md") if line.startswith("make ")}
    assert named and named <= made


def payments(path: Path, rows: int = 800) -> None:
    random = np.random.default_rng(0)
    amount = random.lognormal(3, 1, rows)
    night = random.random(rows) < 0.2
    odds = 1 / (1 + np.exp(-(np.log(amount) - 4.2 + 2 * night)))
    country = random.choice(["NL", "FR", "BR"], rows)
    table = pa.table({"amount": amount, "night": night, "country": country,
                      "is_fraud": random.random(rows) < odds * 0.6})
    parquet.write_table(table, path)


@pytest.mark.timeout(600)
def test_the_walk_of_the_readme(tmp_path: Path) -> None:
    payments(tmp_path / "tx.parquet")
    rows = parquet.read_table(tmp_path / "tx.parquet").slice(0, 5).drop_columns(["is_fraud"])
    rows.to_pandas().to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    environment = {**os.environ, "RAYMILL_HOME": str(tmp_path / ".raymill")}
    walk = [line for line in commands(ROOT / "README.md") if line.startswith("raymill ")]
    assert [shlex.split(line)[1] for line in walk] == [
        "init", "check", "run", "models", "serve", "predict", "serve", "ui"]
    for line in walk[:-1]:
        command = [sys.executable, "-m", "raymill", *shlex.split(line)[1:]]
        done = subprocess.run(command, cwd=tmp_path, env=environment, text=True,
                              capture_output=True, timeout=400, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        if " predict " in line:
            assert done.stdout.count('"prediction"') == 5
    ui = [sys.executable, "-m", "raymill", "ui", "--port", "5057"]
    with subprocess.Popen(ui, cwd=tmp_path, env=environment, start_new_session=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            _until_answers("http://127.0.0.1:5057/health", process)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise
    assert process.returncode == 130


def _until_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, timeout=2, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"{url} did not answer")
