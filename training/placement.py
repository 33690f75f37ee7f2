"""Where the workers find their rows: in the object store, or each a share of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import ray.data
import ray.train

from raymill.data.remote import get, submit
from raymill.errors import Problem, SpecError
from raymill.events import Notify, note

from .shard import Block, Shard
from .spec import Workers

if TYPE_CHECKING:
    from raymill.data.prepare import Prepared

SPLITS = ("train", "validation")
ROOM = 0.4  # share of a node's object store that the rows may take: they are there twice at first


@dataclass(frozen=True)
class Rows:
    """What workers take their rows from.

    Attributes:
        held: split -> reference to all its rows, in one block; empty: too many to be held.
        shares: then, `<split>-<rank>`: contiguous shares of them.
    """

    held: dict[str, list[Any]] = field(default_factory=dict)
    shares: dict[str, ray.data.Dataset] = field(default_factory=dict)


def place_rows(prepared: Prepared, workers: int | Workers, notify: Notify) -> Rows:
    """All rows for all workers, or a share for each where they are too many.

    Raises:
        SpecError: then, when there is no fixed number of workers to share them out to.
    """
    if fits(prepared):
        return Rows(held=hold(prepared))
    if not isinstance(workers, int):
        raise SpecError(Problem(
            rule="training.workers: {min, max} needs rows that fit in the object store of every "
                 "node", cure="Give Ray more object store memory, or name one number of workers."))
    note(notify, "the rows do not fit in the object store of every node: each worker goes through "
                 "a share of its own, so batches depend on the number of workers")
    return Rows(shares=own_shares(prepared, workers))


def fits(prepared: Prepared) -> bool:
    """Whether every node can hold all rows in its object store."""
    sizes = [node["Resources"].get("object_store_memory", 0) for node in ray.nodes()
             if node["Alive"]]
    needed = sum(prepared.tensor_bytes(split) for split in SPLITS)
    return bool(needed <= ROOM * min(sizes, default=0))


_shared: dict[int, dict[str, list[Any]]] = {}  # by the id of the prepared data


@contextmanager
def holding(prepared: Prepared) -> Iterator[None]:
    """While the block runs, `hold` makes the rows once for whoever asks, and keeps them."""
    _shared[id(prepared)] = {}
    try:
        yield
    finally:
        del _shared[id(prepared)]


def hold(prepared: Prepared) -> dict[str, list[Any]]:
    """All rows of each split as one block in the object store, that the workers of a node map."""
    held = _shared.get(id(prepared), {})
    if held:
        return held
    for split in SPLITS:
        blocks = prepared.tensors(split)
        held[split] = blocks if len(blocks) < 2 else [submit(_join, blocks)]
    for refs in held.values():
        ray.wait(refs, num_returns=len(refs), fetch_local=False)
    return held


def _join(*blocks: Block) -> dict[str, Any]:
    filled = [block for block in blocks if len(block["target"])] or [blocks[0]]
    return {name: np.concatenate([block[name] for block in filled]) for name in filled[0]}


def own_shares(prepared: Prepared, workers: int) -> dict[str, ray.data.Dataset]:
    """`<split>-<rank>`: contiguous shares of the rows, no row lost and none twice.

    Split here, before the workers hold the CPUs that splitting takes.
    """
    shares: dict[str, ray.data.Dataset] = {}
    for split in SPLITS:
        whole = prepared.tensor_dataset(split).materialize()
        rows = whole.count()
        cuts = [rows * rank // workers for rank in range(1, workers)]
        parts = whole.split_at_indices(cuts) if cuts else [whole]
        shares |= {f"{split}-{rank}": part for rank, part in enumerate(parts)}
    return shares


def shard_of(rows: Mapping[str, list[Any]], split: str, rank: int, seed: int) -> Shard:
    """What a worker trains on: the rows that every worker of the node maps (no copy is made), or
    where `rows` is empty its own share. Each share has a seed of its own, so that ranks draw
    other orders."""
    if rows:
        return Shard([get(ref) for ref in rows[split]], seed, shared=True)
    blocks = ray.train.get_dataset_shard(f"{split}-{rank}").iter_batches(
        batch_size=None, batch_format="numpy", prefetch_batches=0
    )
    return Shard(list(blocks), seed * 4099 + rank)
