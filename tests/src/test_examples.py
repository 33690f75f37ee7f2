"""Each example's spec is valid, and its data is made the same each time."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raymill.spec import load_spec

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/raymill.yaml"))


def _make(name: str, folder: Path, *more: str) -> dict[str, str]:
    command = [sys.executable, str(EXAMPLES / name / "make_data.py"), str(folder), *more]
    subprocess.run(command, check=True, capture_output=True)
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_the_examples_are_these() -> None:
    assert NAMES == ["breast_cancer", "digits", "fraud", "own_model", "text"]


@pytest.mark.parametrize("name", NAMES)
def test_the_spec_is_valid_and_its_source_is_made(name: str, tmp_path: Path) -> None:
    spec = load_spec(EXAMPLES / name / "raymill.yaml")
    assert spec.name == name
    made = _make(name, tmp_path, *(["--payments", "2000"] if name == "fraud" else []))
    assert isinstance(spec.data.source, str)
    assert any(file == spec.data.source or file.startswith(f"{spec.data.source}/") for file in made)


def test_payments_are_the_same_each_time_and_look_back_only(tmp_path: Path) -> None:
    first = _make("fraud", tmp_path / "a", "--payments", "5000")
    assert first == _make("fraud", tmp_path / "b", "--payments", "5000")
    assert first != _make("fraud", tmp_path / "c", "--payments", "5000", "--seed", "1")
    table = pq.read_table(tmp_path / "a" / "payments").to_pandas().sort_values("tx_time")
    assert 0.002 < table["is_fraud"].mean() < 0.05
    assert table.groupby("customer_id").head(1)["customer_mean_amount_30d"].isna().all()
    one = table[table["customer_id"] == table["customer_id"].mode()[0]]
    before = one["tx_time"].iloc[-1] - one["tx_time"].iloc[:-1]
    assert one["customer_payments_30d"].iloc[-1] == (before.dt.total_seconds() <= 30 * 86_400).sum()
