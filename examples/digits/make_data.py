"""Writes scikit-learn's handwritten digits as PNG bytes: `python make_data.py [FOLDER]`."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits


def png(pixels: NDArray[np.float64]) -> bytes:
    """`[8, 8]` of 0-16 as a grey PNG."""
    buffer = io.BytesIO()
    Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def main(folder: Path) -> None:
    digits = load_digits()
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    table = pa.table({
        "image": pa.array([png(image) for image in digits.images], pa.binary()),
        "digit": pa.array([names[label] for label in digits.target]),
    })
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "digits.parquet")
    print(f"{len(table):,} images in {folder / 'digits.parquet'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
