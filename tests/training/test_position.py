"""Every row is taken once an epoch, on whatever numbers of workers its stretches ran."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from raymill.training import feed as feed_module
from raymill.training.feed import Feed
from raymill.training.position import Position, Stretch
from raymill.training.session import InlineSession
from raymill.training.shard import Shard

from .samples import block

ROWS, BATCH, EPOCH = 103, 8, 2


def feeds(monkeypatch: pytest.MonkeyPatch, world: int, position: Position) -> list[Feed]:
    """The feed of every rank of a group that goes on at `position`."""
    cuts = [ROWS * rank // world for rank in range(world + 1)]
    whole = block(ROWS)
    whole["numeric"][:, 0] = range(ROWS)
    made = []
    for rank, (low, high) in enumerate(pairwise(cuts)):
        answers = iter([[b - a for a, b in pairwise(cuts)], list(range(world))])
        monkeypatch.setattr(feed_module, "gather_counts", lambda *_, told=answers: next(told))
        shard = Shard([{name: rows[low:high] for name, rows in whole.items()}], rank)
        feed = Feed(shard, InlineSession(rank=rank, world_size=world), BATCH)
        feed.goes_on(Position([Stretch(s.shares, s.seeds, list(s.sizes), s.steps)
                               for s in position.stretches]))
        made.append(feed)
    return made


def take(group: list[Feed], steps: int) -> Counter[int]:
    """The rows that a group takes in so many steps (or to the end of the epoch)."""
    seen: Counter[int] = Counter()
    for feed in group:
        left = feed.begin(EPOCH)
        batches = feed.batches(EPOCH)
        for _ in range(min(steps, left)):
            batch = next(batches, None)
            if batch is not None:
                rows = [int(row) for row in batch["numeric"][:, 0]]
                assert rows == feed.chosen(EPOCH).tolist()
                seen.update(rows)
            feed.stretch.steps += 1
    return seen


@pytest.mark.parametrize("plan", [
    [(2, 5), (1, 99)], [(1, 3), (3, 4), (2, 99)], [(3, 1), (3, 2), (1, 1), (1, 99)],
    [(2, 99), (1, 99)],
])
def test_each_row_comes_once_an_epoch_on_other_numbers_of_workers(
    monkeypatch: pytest.MonkeyPatch, plan: list[tuple[int, int]]
) -> None:
    seen, position = Counter[int](), Position()
    for world, steps in plan:
        group = feeds(monkeypatch, world, position)
        seen += take(group, steps)
        position = group[0].position
    assert seen == Counter(range(ROWS))


def test_the_same_number_of_workers_takes_up_the_same_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = take(feeds(monkeypatch, 2, Position()), 99)
    first = feeds(monkeypatch, 2, Position())
    part = take(first, 4)
    rest = feeds(monkeypatch, 2, first[0].position)
    assert part + take(rest, 99) == whole
    assert len(rest[0].position.stretches) == 1
