"""The Adult census table: the real one where RAYMILL_DATA has it, else one made like it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from raymill.data.prepare import Prepared, prepare
from raymill.data.spec import DataSpec, SplitSpec
from raymill.events import ignore

ROWS = 32_561


def adult(folder: Path, rows: int = ROWS) -> tuple[Prepared, str]:
    """Prepared rows, and whether they are `real` or `generated`; needs a running Ray."""
    given = Path(os.environ.get("RAYMILL_DATA", "")) / "adult" / "train.csv"
    real = bool(os.environ.get("RAYMILL_DATA")) and given.is_file() and rows == ROWS
    if real:
        shutil.copyfile(given, folder / "adult.csv")
    else:
        pyarrow.csv.write_csv(made(rows), folder / "adult.csv")
    spec = DataSpec(source="adult.csv", target="income", split=SplitSpec(by="stratified"))
    return prepare(spec, folder, folder / "cache", ignore), "real" if real else "generated"


def made(rows: int) -> pa.Table:
    """Mixed columns of which a quarter of the rows' incomes follow, with noise and interactions."""
    draw = np.random.default_rng(0)
    age = draw.integers(17, 90, rows)
    years = np.clip(draw.normal(10, 2.6, rows), 1, 16).round()
    hours = np.clip(draw.normal(40, 12, rows), 1, 99).round()
    gain = np.where(draw.random(rows) < 0.08, draw.lognormal(8, 1.3, rows).round(), 0)
    marital, job = draw.integers(0, 7, rows), draw.integers(0, 15, rows)
    country = draw.zipf(2.0, rows).clip(1, 40)
    worth = draw.normal(size=15)
    score = (0.3 * (years - 10) + 0.9 * (marital < 3) + 0.5 * worth[job] - ((age - 47) / 17) ** 2
             + 0.02 * (hours - 40) * (marital < 3) + 0.5 * np.log1p(gain) / 3 - 1.35)
    rich = draw.random(rows) < 1 / (1 + np.exp(-1.6 * score))
    return pa.table({
        "age": age, "education_num": years, "hours_per_week": hours, "capital_gain": gain,
        "fnlwgt": draw.lognormal(12, 0.5, rows).round(),
        "marital_status": [f"m{value}" for value in marital],
        "occupation": [f"o{value}" for value in job],
        "native_country": [f"c{value}" for value in country],
        "income": np.where(rich, ">50K", "<=50K"),
    })
