"""Small data that the tests of this room share."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raymill.data.contract import ColumnRule, Contract


@pytest.fixture
def contract() -> Contract:
    """A binary task over one column of each kind, with every rule somewhere."""
    return Contract(
        target="y", task="binary", classes=["no", "yes"], key=["id"],
        columns={
            "id": ColumnRule(type="int64", kind="ignore"),
            "age": ColumnRule(type="int64", kind="numeric", min=0, max=120),
            "pay": ColumnRule(type="float64", kind="numeric", nullable=True),
            "city": ColumnRule(type="string", kind="categorical", values=["Rome", "Oslo"],
                               closed=True, nullable=True),
            "zip": ColumnRule(type="string", kind="categorical", pattern=r"\d{3}",
                              sensitive=True),
            "at": ColumnRule(type="timestamp", kind="datetime", min="2026-01-01"),
            "member": ColumnRule(type="bool", kind="categorical"),
            "y": ColumnRule(type="string", kind="categorical", values=["no", "yes"], closed=True),
        })


@pytest.fixture
def good_row() -> dict[str, object]:
    """A request that keeps the contract."""
    return {"age": 30, "pay": 1.5, "city": "Oslo", "zip": "123", "at": "2026-02-01T10:00:00Z",
            "member": True}


@pytest.fixture
def png() -> Callable[..., bytes]:
    """Makes a PNG of random pixels: `png(seed, height, width, channels)`."""

    def make(seed: int = 0, height: int = 8, width: int = 8, channels: int = 1) -> bytes:
        shape = (height, width) if channels == 1 else (height, width, channels)
        pixels = np.random.default_rng(seed).integers(0, 255, shape, np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG")
        return out.getvalue()

    return make


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """400 rows of CSV: id, age, pay (some empty), city, joined (dates), bought."""
    random = np.random.default_rng(7)
    lines = ["id,age,pay,city,joined,bought"]
    for i in range(400):
        age = random.integers(18, 90)
        pay = "" if random.random() < 0.1 else f"{random.lognormal(3):.2f}"
        city = random.choice(["Oslo", "Rome", '"Paris, France"'])
        bought = "yes" if random.random() < age / 150 else "no"
        lines.append(f"{i},{age},{pay},{city},2026-{1 + i // 40:02d}-{1 + i % 28:02d},{bought}")
    path = tmp_path / "people.csv"
    path.write_text("\n".join(lines) + "\n")
    return path
