from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from raymill.errors import DataError, Problem
from raymill.serving.batcher import Batcher, Overloaded

Row = dict[str, Any]


class Gate:
    """Scores a row as its double, one pass at a time, each as soon as it is let through."""

    def __init__(self) -> None:
        self.passes: list[int] = []
        self.open = threading.Semaphore(0)

    def __call__(self, requests: Sequence[list[Row]]) -> list[list[Row]]:
        assert self.open.acquire(timeout=10)
        rows = [row for each in requests for row in each]
        self.passes.append(len(rows))
        bad = [i for i, row in enumerate(rows) if row["x"] is None]
        if bad:
            raise DataError([Problem(rule="x is needed", where=f"rows[{i}].x") for i in bad])
        return [[{"y": 2 * row["x"]} for row in each] for each in requests]


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.release(100)


def rows(*values: float | None) -> list[Row]:
    return [{"x": value} for value in values]


def run(
    gate: Gate, requests: list[list[Row]], opened: int, **limits: Any
) -> list[list[Row] | BaseException]:
    """Submit `requests` in order, let `opened` passes through; what each came to."""

    async def main() -> list[list[Row] | BaseException]:
        batcher: Batcher[list[Row], list[Row]] = Batcher(gate, **{"max_rows": 8, "max_waiting": 8, **limits})
        tasks = [asyncio.create_task(batcher.submit(each, len(each))) for each in requests]
        await asyncio.sleep(0.05)
        gate.open.release(opened)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert batcher.held == 0 and batcher.busy_s == 0
        batcher.close()
        return results

    return asyncio.run(main())


def test_a_lone_request_starts_at_once_and_those_that_came_meanwhile_share_a_pass(
    gate: Gate,
) -> None:
    results = run(gate, [rows(1), rows(2), rows(3, 4)], opened=2)
    assert results == [[{"y": 2}], [{"y": 4}], [{"y": 6}, {"y": 8}]]
    assert gate.passes == [1, 3]


def test_a_pass_takes_whole_requests_up_to_its_rows(gate: Gate) -> None:
    run(gate, [rows(1), rows(1, 2, 3), rows(4, 5, 6), rows(7)], opened=3, max_rows=4)
    assert gate.passes == [1, 3, 4]


def test_a_request_larger_than_a_pass_goes_alone(gate: Gate) -> None:
    results = run(gate, [rows(1), rows(*range(9)), rows(2)], opened=3, max_rows=4)
    assert gate.passes == [1, 9, 1]
    assert results[1] == [{"y": 2 * x} for x in range(9)]


def test_a_bad_row_fails_only_its_own_request_with_its_own_row_number(gate: Gate) -> None:
    results = run(gate, [rows(0), rows(1), rows(2, None), rows(3)], opened=5)
    assert results[0] == [{"y": 0}] and results[1] == [{"y": 2}] and results[3] == [{"y": 6}]
    assert isinstance(results[2], DataError)
    assert results[2].problems[0].where == "rows[1].x"


def test_more_requests_than_may_wait_are_refused(gate: Gate) -> None:
    results = run(gate, [rows(1), rows(2), rows(3)], opened=2, max_waiting=2)
    assert results[:2] == [[{"y": 2}], [{"y": 4}]]
    assert isinstance(results[2], Overloaded)


def test_more_may_wait_while_other_replicas_are_missing(gate: Gate) -> None:
    async def main() -> None:
        batcher: Batcher[Any, Any] = Batcher(gate, max_rows=8, max_waiting=2)
        batcher.share = 2.0
        tasks = [asyncio.create_task(batcher.submit(rows(n), 1)) for n in range(5)]
        await asyncio.sleep(0.05)
        gate.open.release(5)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(each, Overloaded) for each in results] == [False] * 4 + [True]
        batcher.close()

    asyncio.run(main())


def test_a_failure_of_the_model_reaches_every_request_and_the_next_is_served() -> None:
    answers: list[Callable[[], Any]] = [lambda: 1 / 0, lambda: [[{"y": 1}]]]

    async def main() -> None:
        batcher: Batcher[Any, Any] = Batcher(lambda rows: answers.pop(0)(), max_rows=4,
                                             max_waiting=4)
        with pytest.raises(ZeroDivisionError):
            await batcher.submit(rows(1), 1)
        assert await batcher.submit(rows(1), 1) == [{"y": 1}]
        batcher.close()

    asyncio.run(main())


def test_a_request_whose_caller_gave_up_is_not_scored(gate: Gate) -> None:
    async def main() -> None:
        batcher: Batcher[Any, Any] = Batcher(gate, max_rows=8, max_waiting=8)
        first = asyncio.create_task(batcher.submit(rows(1), 1))
        given_up = asyncio.create_task(batcher.submit(rows(2, 3), 2))
        last = asyncio.create_task(batcher.submit(rows(4), 1))
        await asyncio.sleep(0.05)
        given_up.cancel()
        await asyncio.sleep(0)
        gate.open.release(2)
        assert await first == [{"y": 2}] and await last == [{"y": 8}]
        assert gate.passes == [1, 1] and batcher.held == 0
        batcher.close()

    asyncio.run(main())


def test_how_long_a_pass_has_taken_is_seen(gate: Gate) -> None:
    async def main() -> None:
        batcher: Batcher[Any, Any] = Batcher(gate, max_rows=8, max_waiting=8)
        task = asyncio.create_task(batcher.submit(rows(1), 1))
        await asyncio.sleep(0.1)
        assert batcher.busy_s >= 0.09
        gate.open.release()
        await task
        assert batcher.busy_s == 0
        batcher.close()

    asyncio.run(main())
