"""A shard gives each of its rows once an epoch, in an order of (seed, epoch)."""

import numpy as np
import pytest
import torch

from raymill.training.shard import Shard, as_tensor, equal_steps, step_rows


def rows_of(shard: Shard, epoch: int, size: int = 7, **options: int | bool) -> list[int]:
    batches = shard.batches(epoch, size, **options)  # type: ignore[arg-type]
    return [int(row) for batch in batches for row in batch["target"]]


def make(seed: int = 0) -> Shard:
    parts = np.split(np.arange(50), [13, 13, 40])
    return Shard([{"target": part, "numeric": np.stack([part, -part], 1)} for part in parts], seed)


def test_each_row_once_an_epoch_whatever_the_blocks() -> None:
    shard = make()
    assert shard.rows == 50
    assert sorted(rows_of(shard, 0)) == list(range(50))
    assert rows_of(shard, 0, shuffle=False) == list(range(50))


def test_the_order_follows_from_seed_and_epoch() -> None:
    assert rows_of(make(), 3) == rows_of(make(), 3)
    assert rows_of(make(), 3) != rows_of(make(), 4)
    assert rows_of(make(1), 3) != rows_of(make(2), 3)


def test_a_position_goes_on_where_it_stood() -> None:
    assert rows_of(make(), 2)[14:] == rows_of(make(), 2, start=14)


def test_columns_stay_together() -> None:
    for batch in make().batches(1, 8):
        assert torch.equal(batch["numeric"][:, 0], batch["target"])


def test_an_array_is_not_copied() -> None:
    array = np.arange(5.0)
    array.flags.writeable = False
    assert as_tensor(array).data_ptr() == array.ctypes.data


def test_no_rows_are_no_batches() -> None:
    assert rows_of(Shard([]), 0) == []


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 7])
def test_every_step_has_rows_and_every_row_is_taken_once(workers: int) -> None:
    for rows in [*range(workers, 300), 999, 10_000, 10_001, 99_991]:
        counts = [rows * (r + 1) // workers - rows * r // workers for r in range(workers)]
        for batch in (1, 7, 32, 64, 1024):
            steps, sizes = equal_steps(counts, batch)
            taken = [step_rows(step, counts, sizes) for step in range(steps)]
            assert min(taken) > 0 and sum(taken) == rows, (rows, batch)
            assert steps <= -(-rows // batch)


def test_ranks_of_very_unlike_size_take_every_row() -> None:
    steps, sizes = equal_steps([90, 3, 1], 32)
    assert sum(step_rows(step, [90, 3, 1], sizes) for step in range(steps)) == 94
