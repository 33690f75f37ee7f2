"""The result of preparing data: typed splits on disk, and what was fitted on them."""

from __future__ import annotations

import json
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

from .contract import Contract
from .remote import submit
from .transform import Transform

TENSOR_ROWS = 32_768  # rows of a tensor block, about
SAMPLED_ROWS = 64
TENSOR_BYTES = 64 * 2**20
Block = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Prepared:
    """Prepared data. `rows` are counts by split; kept + quarantined + in_gap = total_rows.

    `files` are what the fingerprint lists; `path` holds `train/`, `validation/`, `test/` and,
    where rows broke the contract, `quarantine/`, as Parquet.
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

    @classmethod
    def load(cls, path: Path) -> Prepared:
        """What `prepare` wrote to `path`."""
        said = json.loads((path / "prepared.json").read_text(encoding="utf-8"))
        contract = json.loads((path / "contract.json").read_text(encoding="utf-8"))
        return cls(
            path=path, contract=Contract.model_validate(contract),
            transform=Transform.load(path / "transform.json"),
            profile=json.loads((path / "profile.json").read_text(encoding="utf-8")), **said)

    def parts(self, split: str) -> list[Path]:
        """The Parquet files of a split, in the order of the rows."""
        return sorted((self.path / split).glob("part-*.parquet"))

    def dataset(self, split: str) -> ray.data.Dataset:
        """The typed rows of `train`, `validation` or `test`, as a Ray data set."""
        return ray.data.read_parquet([str(part) for part in self.parts(split)])

    def table(self, split: str) -> pa.Table:
        """The typed rows of a split in one table, ordered by file and row."""
        parts = self.parts(split)
        if not parts:
            return pa.table({name: pa.nulls(0, rule.arrow)
                             for name, rule in self.contract.columns.items()})
        return pa.concat_tables([pq.read_table(part, partitioning=None) for part in parts])

    def sample(self, split: str, rows: int) -> Block:
        """The tensors and `target` of at most `rows` rows of the split, drawn the same each time
        from the first row group of up to four of its files; needs no Ray."""
        parts = self.parts(split)
        table = pa.concat_tables([_group(str(part), 0) for part in parts[:: -(-len(parts) // 4)]])
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
            with pq.ParquetFile(part) as file:
                for first in file.iter_batches(SAMPLED_ROWS):
                    table = pa.Table.from_batches([first])
                    arrays = [*self.transform.apply(table).values(), self.transform.targets(table)]
                    return sum(a.nbytes for a in arrays) * self.rows[split] // len(table)
        return 0

    def tensor_dataset(self, split: str) -> ray.data.Dataset:
        """The same as a Ray data set with tensor columns, its blocks in the object store."""
        refs = [submit(_arrow, (ref,)) for ref in self.tensors(split)]
        return ray.data.from_arrow_refs(refs)

    def _jobs(self, split: str) -> list[list[tuple[str, int]]]:
        """(file, row group) pairs of each block."""
        shape = self.transform.image
        width = int(np.prod(shape)) if shape is not None else 1
        width += 8 * sum(self.transform.schema.places)
        most = max(1, min(TENSOR_ROWS, TENSOR_BYTES // width))
        jobs: list[list[tuple[str, int]]] = []
        room = 0
        for part in self.parts(split):
            meta = pq.read_metadata(part)
            for group in range(meta.num_row_groups):
                rows = meta.row_group(group).num_rows
                if room < rows or not jobs:
                    jobs.append([])
                    room = most
                jobs[-1].append((str(part), group))
                room -= rows
        return jobs


def _tensors(transform: Transform, job: list[tuple[str, int]]) -> Block:
    return _block(transform, pa.concat_tables([_group(path, group) for path, group in job]))


def _group(path: str, group: int) -> pa.Table:
    with pq.ParquetFile(path) as part:
        return part.read_row_group(group)


def _block(transform: Transform, table: pa.Table) -> Block:
    return {**transform.apply(table), "target": transform.targets(table)}


def _arrow(block: Block) -> pa.Table:
    return BlockAccessor.batch_to_arrow_block(block)
