"""Writes scikit-learn's breast cancer table as CSV: `python make_data.py [FOLDER]`."""

from __future__ import annotations

import sys
from pathlib import Path

from sklearn.datasets import load_breast_cancer


def main(folder: Path) -> None:
    bunch = load_breast_cancer(as_frame=True)
    table = bunch.frame.rename(columns=lambda name: name.replace(" ", "_"))
    table["diagnosis"] = table.pop("target").map({0: "malignant", 1: "benign"})
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "breast_cancer.csv", index=False)
    print(f"{len(table):,} rows in {folder / 'breast_cancer.csv'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
