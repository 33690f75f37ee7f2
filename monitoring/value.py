"""What the answers of each version were worth, from the labels that came back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .predictions import ALL, Window, labelled

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Costs:
    """What the two errors of a binary model cost, and which class is the positive one."""

    false_positive: float
    false_negative: float
    positive: str

    @classmethod
    def of(cls, objective: Mapping[str, object], classes: Sequence[str] | None) -> Costs | None:
        """Those of a bundle's objective.json; None where it names none."""
        costs = objective.get("costs")
        if not isinstance(costs, Mapping) or classes is None or len(classes) != 2:
            return None
        return cls(float(costs["false_positive"]), float(costs["false_negative"]), classes[1])


@dataclass(frozen=True)
class Worth:
    """The value of the labelled rows of a version: count, mean and sample variance, a row."""

    version: int
    variant: str
    count: int
    mean: float
    variance: float  # NaN for one row


def worth(log: Path, costs: Costs | None = None, window: Window = ALL) -> list[Worth]:
    """The mean value of an answer, by version and variant.

    With `costs` an answer is worth minus what it cost; without, 1 where the class was right and 0
    where not, and for numbers minus the absolute error.
    """
    seen: dict[tuple[int, str], list[Values]] = {}
    for table in labelled(log, window, ["prediction"]):
        values = value_of(table, costs)
        versions = table["version"].to_numpy()
        variants = np.array(table["variant"].to_pylist())
        for version, variant in {*zip(versions.tolist(), variants.tolist(), strict=True)}:
            chosen = (versions == version) & (variants == variant)
            seen.setdefault((version, variant), []).append(values[chosen])
    found = []
    for (version, variant), arrays in sorted(seen.items()):
        all_ = np.concatenate(arrays)
        variance = float(all_.var(ddof=1)) if len(all_) > 1 else math.nan
        found.append(Worth(version, variant, len(all_), float(all_.mean()), variance))
    return found


def value_of(table: pa.Table, costs: Costs | None) -> Values:
    """The value of each labelled row, see `worth`."""
    prediction, label = table["prediction"], table["label"]
    if not pa.types.is_string(prediction.type):
        truth = np.array([float(text) for text in label.to_pylist()])
        error: Values = np.abs(prediction.to_numpy() - truth)
        return -error
    said = np.array(prediction.to_pylist(), dtype=object)
    true = np.array(label.to_pylist(), dtype=object)
    if costs is None:
        right: Values = (said == true).astype(np.float64)
        return right
    cost: Values = np.where(said == costs.positive, costs.false_positive, costs.false_negative)
    value: Values = np.where(said != true, -cost, 0.0)
    return value
