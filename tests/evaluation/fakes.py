"""Small stand-ins for what the data and training rooms hand over."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Scorer = Callable[[pa.Table], np.ndarray]


@dataclass
class FakePrepared:
    """Tables by split, with the target already a class index or a number."""

    tables: dict[str, pa.Table]
    kinds: dict[str, str]
    schema: SimpleNamespace
    target: str = "y"

    def table(self, split: str) -> pa.Table:
        return self.tables[split]

    @property
    def rows(self) -> dict[str, int]:
        return {split: len(table) for split, table in self.tables.items()}

    def parts(self, split: str) -> list[SimpleNamespace]:
        """Two Parquet files, in memory."""
        table, parts = self.tables[split], [io.BytesIO(), io.BytesIO()]
        half = len(table) // 2
        pq.write_table(table.slice(0, half), parts[0])
        pq.write_table(table.slice(half), parts[1])
        return [SimpleNamespace(open=partial(pq.ParquetFile, part)) for part in parts]

    @property
    def contract(self) -> SimpleNamespace:
        columns = {name: SimpleNamespace(kind=kind, type="x") for name, kind in self.kinds.items()}
        return SimpleNamespace(columns=columns, features=list(self.kinds), target=self.target)

    @property
    def transform(self) -> SimpleNamespace:
        return SimpleNamespace(
            schema=self.schema,
            targets=lambda table: table[self.target].to_numpy(),
            apply=lambda table: {"image": np.stack(table["image"].to_pylist()).astype(np.uint8)},
        )


@dataclass
class FakePredictor:
    """Scores by a function; its bundle is a folder with one file of 1000 bytes."""

    scores: Scorer
    prepared: FakePrepared
    path: Path
    objective: dict[str, Any] = field(default_factory=lambda: {"threshold": 0.5})

    def __post_init__(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "model.safetensors").write_bytes(b"0" * 1000)

    def predict(self, table: pa.Table) -> pa.Table:
        return table

    @property
    def bundle(self) -> SimpleNamespace:
        return SimpleNamespace(
            schema=self.prepared.schema,
            objective=self.objective,
            contract=self.prepared.contract,
            path=self.path,
        )


def schema(task: str, classes: tuple[str, ...] | None) -> SimpleNamespace:
    return SimpleNamespace(task=task, classes=classes)


def binary(rows: int = 1200, seed: int = 0) -> FakePrepared:
    """A yes/no outcome that depends on a curve of x, on a colour and on nothing else."""
    rng = np.random.default_rng(seed)

    def split(n: int) -> pa.Table:
        x = rng.normal(size=n)
        colour = rng.choice(["red", "green", "blue"], n)
        logit = 3 * np.abs(x) - 2.5 + 1.5 * (colour == "red")
        y = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.int64)
        holes = pa.array(x, mask=rng.random(n) < 0.05)
        return pa.table({"x": holes, "colour": colour, "y": y, "truth": 1 / (1 + np.exp(-logit))})

    tables = {"train": split(2 * rows), "validation": split(rows), "test": split(rows)}
    return FakePrepared(
        tables, {"x": "numeric", "colour": "categorical"}, schema("binary", ("no", "yes"))
    )


def regression(rows: int = 800) -> FakePrepared:
    rng = np.random.default_rng(3)

    def split(n: int) -> pa.Table:
        x = rng.normal(size=n)
        when = np.datetime64("2024-01-01", "us") + rng.integers(0, 10**13, n).astype("m8[us]")
        return pa.table({"x": x, "when": when, "y": 10 + 4 * x + rng.normal(size=n)})

    tables = {"train": split(2 * rows), "validation": split(rows), "test": split(rows)}
    return FakePrepared(
        tables, {"x": "numeric", "when": "datetime"}, schema("regression", None)
    )


def images(rows: int = 300, classes: int = 3) -> FakePrepared:
    """Images of 8x8 whose bright column is their class."""
    rng = np.random.default_rng(4)

    def split(n: int) -> pa.Table:
        y = rng.integers(classes, size=n)
        pixels = rng.integers(0, 120, (n, 1, 8, 8))
        pixels[np.arange(n), 0, :, 2 * y] += 100
        return pa.table({"image": pixels.tolist(), "y": y})

    tables = {"train": split(rows), "validation": split(rows), "test": split(rows)}
    names = tuple(f"class {k}" for k in range(classes))
    return FakePrepared(tables, {"image": "image"}, schema("multiclass", names))
