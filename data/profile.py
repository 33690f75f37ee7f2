"""Reference statistics of the training rows, as JSON: for the report, and for drift later."""

from __future__ import annotations

from typing import Any

import numpy as np
import ray.data

from .contract import Contract
from .stats import Summaries, summarise
from .summary import ColumnSummary
from .text import describe

EDGES = 21  # quantile edges: twenty bins of equal weight
TOP = 50  # categories listed with their counts


def profile(ds: ray.data.Dataset, contract: Contract) -> dict[str, Any]:
    """`{rows, target, columns: {name: {...}}}` of the rows of `ds`."""
    return from_summaries(summarise(ds, contract), contract)


def from_summaries(seen: Summaries, contract: Contract) -> dict[str, Any]:
    """The profile that merged summaries make."""
    return {
        "version": 1,
        "rows": seen[contract.target].rows,
        "task": contract.task,
        "target": contract.target,
        "columns": {name: {"kind": rule.kind, "type": rule.type,
                           **_column(seen[name], sensitive=rule.sensitive)}
                    for name, rule in contract.columns.items()},
    }


def _column(seen: ColumnSummary, *, sensitive: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"count": seen.rows, "nulls": seen.nulls}
    if seen.what in ("numbers", "items"):
        said["distinct"] = seen.distinct.count
    if seen.what == "numbers" and seen.numbers.count:
        edges = seen.numbers.quantiles(np.linspace(0, 1, EDGES))
        said |= {"mean": seen.numbers.mean, "std": seen.numbers.std, "min": seen.numbers.min,
                 "max": seen.numbers.max, "edges": edges.tolist()}
    if seen.what == "items" and not sensitive:
        top = seen.items.top(TOP)
        rest = seen.rows - seen.nulls - sum(count for _, count in top)
        said |= {"top": [[name, count] for name, count in top], "other": max(rest, 0)}
    if seen.what == "text":
        said |= describe(seen, TOP, sensitive=sensitive)
    if seen.first is not None:
        said["shape"] = list(seen.first[1])
    return said
