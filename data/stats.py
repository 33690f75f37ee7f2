"""Summaries of every column of a data set, by parallel tasks over its blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import ray.data

from .conform import FILE, ROW
from .contract import Contract
from .remote import gather
from .summary import ColumnSummary

Summaries = dict[str, ColumnSummary]


def blocks(ds: ray.data.Dataset) -> Iterator[Any]:
    """References to the data set's blocks, in order, as they come to be."""
    for bundle in ds.iter_internal_ref_bundles():
        yield from bundle.block_refs


def summarise(ds: ray.data.Dataset, contract: Contract) -> Summaries:
    """The merged summaries of all rows of `ds`."""
    handed = ray.put(contract)
    merged: Summaries = {}
    for found in gather(of_table, ((block, handed) for block in blocks(ds))):
        merge(merged, found)
    return merged


def merge(merged: Summaries, more: Summaries) -> None:
    """Take `more` into `merged`."""
    for name, summary in more.items():
        if name in merged:
            merged[name].merge(summary)
        else:
            merged[name] = summary


def of_table(table: pa.Table, contract: Contract) -> Summaries:
    """The summaries of one block."""
    place = 0
    if len(table) and FILE in table.column_names:
        place = (table[FILE][0].as_py() << 40) + table[ROW][0].as_py()
    found: Summaries = {}
    for name, rule in contract.columns.items():
        what = {"numeric": "numbers", "datetime": "numbers", "image": "image",
                "categorical": "items", "text": "text"}.get(rule.kind, "nothing")
        if name == contract.target:
            what = "numbers" if contract.classes is None else "items"
        found[name] = ColumnSummary(what)
        if name in table.column_names:
            found[name].add(table[name].combine_chunks(), place)
    return found
