"""Writes scikit-learn's diabetes table as JSONL: `python make_data.py [FOLDER]`."""

from __future__ import annotations

import sys
from pathlib import Path

from sklearn.datasets import load_diabetes


def main(folder: Path) -> None:
    table = load_diabetes(as_frame=True, scaled=False).frame
    folder.mkdir(parents=True, exist_ok=True)
    table.to_json(folder / "diabetes.jsonl", orient="records", lines=True)
    print(f"{len(table):,} rows in {folder / 'diabetes.jsonl'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
