"""The result of preparing data: typed splits on disk, and what was fitted on them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
from numpy.typing import NDArray
from ray.data.block import BlockAccessor

from raymill.stores import Folder, Store

from .contract import Contract
from .remote import submit
from .transform import Transform

TENSOR_ROWS = 32_768  # rows of a tensor block, about
SAMPLED_ROWS = 64
TENSOR_BYTES = 64 * 2**20
Block = dict[str, NDArray[Any]]
PART = re.compile(r"part-[^/]*\.parquet")


@dataclass(frozen=True)
class Part:
    """A Parquet file of a split."""

    place: Store
    name: str

    @contextmanager
    def open(self) -> Iterator[pq.ParquetFile]:
        away = not isinstance(self.place, Folder)  # then few large reads are quicker
        with self.place.open(self.name) as source, pq.ParquetFile(source, pre_buffer=away) as file:
            yield file


@dataclass(frozen=True)
class Prepared:
    """Prepared data. `rows` are counts by split; kept + quarantined + in_gap = total_rows.

    `files` are what the fingerprint lists; `path` holds `train/`, `validation/`, `test/` and,
    where rows broke the contract, `quarantine/`, as Parquet. Where all of that lies in a `store`,
    `path` is but its name.
    """

    path: Path
    fingerprint: str
    contract: Contract
    transform: Transform
    profile: dict[str, Any]
    rows: dict[str, int]
    total_rows: int
    quarantined: int
    in_gap: int
    notes: list[str]
    files: list[dict[str, Any]]
    store: Store | None = None

    @classmethod
    def load(cls, path: Path, store: Store | None = None) -> Prepared:
        """What `prepare` wrote to `path`, or into `store`."""
        place = store or Folder(path)
        said, contract, fitted, profile = (
            json.loads(place.read(f"{name}.json"))
            for name in ("prepared", "contract", "transform", "profile"))
        return cls(path=path, contract=Contract.model_validate(contract), store=store,
                   transform=Transform.from_dict(fitted), profile=profile, **said)

    def parts(self, split: str) -> list[Part]:
        """The Parquet files of a split, in the order of the rows."""
        place = (self.store or Folder(self.path)) / split
        return [Part(place, name) for name in place.names() if PART.fullmatch(name)]

    def dataset(self, split: str) -> ray.data.Dataset:
        """The typed rows of `train`, `validation` or `test`, as a Ray data set."""
        parts = self.parts(split)
        if self.store is None:
            return ray.data.read_parquet([str(self.path / split / part.name) for part in parts])
        return ray.data.from_arrow_refs([submit(_whole, (part,)) for part in parts])

    def table(self, split: str) -> pa.Table:
        """The typed rows of a split in one table, ordered by file and row."""
        parts = self.parts(split)
        if not parts:
            return pa.table({name: pa.nulls(0, rule.arrow)
                             for name, rule in self.contract.columns.items()})
        return pa.concat_tables([_whole(part) for part in parts])

    def sample(self, split: str, rows: int) -> Block:
        """The tensors and `target` of at most `rows` rows of the split, drawn the same each time
        from the first row group of up to four of its files; needs no Ray."""
        parts = self.parts(split)
        table = pa.concat_tables([_group(part, 0) for part in parts[:: -(-len(parts) // 4)]])
        kept = min(rows, len(table))
        drawn = np.sort(np.random.default_rng(0).choice(len(table), kept, replace=False))
        return _block(self.transform, table.take(pa.array(drawn)))

    def tensors(self, split: str) -> list[ray.ObjectRef[Block]]:
        """The split's tensors and `target`, as blocks in the object store, made in parallel and
        ordered by file and row. `ray.get` of one gives arrays without a copy."""
        state = ray.put(self.transform)
        return [submit(_tensors, (state, job)) for job in self._jobs(split)]

    def tensor_bytes(self, split: str) -> int:
        """About what `tensors(split)` take, judged by the first rows."""
        for part in self.parts(split):
            with part.open() as file:
                for first in file.iter_batches(SAMPLED_ROWS):
                    table = pa.Table.from_batches([first])
                    arrays = [*self.transform.apply(table).values(), self.transform.targets(table)]
                    return sum(a.nbytes for a in arrays) * self.rows[split] // len(table)
        return 0

    def tensor_dataset(self, split: str) -> ray.data.Dataset:
        """The same as a Ray data set with tensor columns, its blocks in the object store."""
        refs = [submit(_arrow, (ref,)) for ref in self.tensors(split)]
        return ray.data.from_arrow_refs(refs)

    def _jobs(self, split: str) -> list[list[tuple[Part, int]]]:
        """(file, row group) pairs of each block."""
        shape = self.transform.image
        width = int(np.prod(shape)) if shape is not None else 1
        width += 8 * sum(self.transform.schema.places)
        most = max(1, min(TENSOR_ROWS, TENSOR_BYTES // width))
        jobs: list[list[tuple[Part, int]]] = []
        room = 0
        for part in self.parts(split):
            with part.open() as file:
                meta = file.metadata
            for group in range(meta.num_row_groups):
                rows = meta.row_group(group).num_rows
                if room < rows or not jobs:
                    jobs.append([])
                    room = most
                jobs[-1].append((part, group))
                room -= rows
        return jobs


def _tensors(transform: Transform, job: list[tuple[Part, int]]) -> Block:
    return _block(transform, pa.concat_tables([_group(part, group) for part, group in job]))


def _group(part: Part, group: int) -> pa.Table:
    with part.open() as file:
        return file.read_row_group(group)


def _whole(part: Part) -> pa.Table:
    with part.open() as file:
        return file.read()


def _block(transform: Transform, table: pa.Table) -> Block:
    return {**transform.apply(table), "target": transform.targets(table)}


def _arrow(block: Block) -> pa.Table:
    return BlockAccessor.batch_to_arrow_block(block)
