"""A hang is told from slowness, and the rank that hangs from those that wait for it."""

from __future__ import annotations

from raymill.training.distributed import STARTING_S
from raymill.training.mailbox import Beat, Mailbox
from raymill.training.watchdog import Look, culprits, overdue

WAITS = '  File "distributed_c10d.py", line 1 in all_reduce\n'
SLEEPS = '  File "loop.py", line 7 in load\n'


def beat(rank: int, typical_s: float = 0.1) -> Beat:
    return Beat(rank, 100 + rank, "node", typical_s)


def test_a_worker_may_take_long_where_its_steps_do() -> None:
    beats = {0: (beat(0), 31.0), 1: (beat(1, typical_s=2.0), 31.0), 2: (beat(2), 29.0)}
    assert list(overdue(beats, 30.0)) == [0]


def test_a_worker_may_take_half_an_hour_before_its_first_step() -> None:
    beats = {0: (beat(0, STARTING_S), 1790.0), 1: (beat(1, STARTING_S), 1810.0)}
    assert list(overdue(beats, 30.0)) == [1]


def test_the_stopped_rank_is_named_not_those_that_wait_for_it() -> None:
    looks = {0: Look("S", WAITS), 1: Look("T", ""), 2: Look("S", SLEEPS)}
    assert culprits(looks, others_live=False) == [1]
    assert looks[1].place == "its process is stopped"


def test_the_rank_outside_a_collective_is_named() -> None:
    looks = {0: Look("S", WAITS), 1: Look("S", SLEEPS)}
    assert culprits(looks, others_live=False) == [1]
    assert "loop.py" in looks[1].place


def test_who_waits_for_a_rank_that_gets_on_is_left_alone() -> None:
    assert culprits({1: Look("S", WAITS)}, others_live=True) == []
    assert culprits({0: Look("S", WAITS), 1: Look("S", WAITS)}, others_live=False) == [0, 1]


def test_a_new_group_is_not_judged_by_the_beats_of_the_last() -> None:
    mailbox = Mailbox()
    assert not mailbox.beat(beat(0))
    mailbox.stop()
    assert mailbox.beat(beat(1))
    assert set(mailbox.fetch().beats) == {0, 1}
    mailbox.rest()
    assert mailbox.fetch().beats == {}
