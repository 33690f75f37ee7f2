"""Which trials are taken for hanging, without a Ray."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raymill.training.mailbox import Beat
from raymill.training.watchdog import Look
from raymill.tuning import hangs
from raymill.tuning.hangs import STARTING_S, Hangs, Pulse

PLACE = '  File "own.py", line 7, in forward'


class Known:
    """A pulse that knows these beats, by (number, process, typical step, age)."""

    def __init__(self, *beats: tuple[int, int, float, float]) -> None:
        told = {n: (Beat(n, pid, "node", typical), age) for n, pid, typical, age in beats}
        self.beats = SimpleNamespace(remote=lambda: told)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that were ended; that of number 13 is gone by itself."""
    ended: list[int] = []
    monkeypatch.setattr(hangs.ray, "get", lambda value, timeout: value)
    monkeypatch.setattr(hangs, "LOOK_S", 0.0)
    monkeypatch.setattr(hangs, "look_at", lambda beat, stacks: Look(
        "" if beat.pid == 13 else "S", PLACE))
    monkeypatch.setattr(hangs, "end_process", lambda beat: ended.append(beat.pid))
    return ended


def look(*beats: tuple[int, int, float, float], limit: str = "auto", live: Any = range(9)) -> Hangs:
    found = Hangs(Known(*beats), limit, Path("trials"))
    for _ in range(2):
        found.look(live)
    return found


def test_a_trial_that_made_no_step_for_long_is_ended_once_and_says_where(ended: list[int]) -> None:
    found = look((1, 11, 0.1, 29.0), (2, 12, 0.1, 31.0))
    assert ended == [12]
    assert "no step for 31 s, at File \"own.py\", line 7, in forward" in found.why(2)
    assert found.why(2) == found.why(1) == "", "a later failure has a cause of its own"


@pytest.mark.parametrize(("beat", "limit"), [
    ((1, 11, 2.0, 39.0), "auto"),  # its steps take long
    ((1, 11, STARTING_S, 299.0), "auto"),  # the first is still to come
    ((10, 11, 0.1, 99.0), "auto"),  # it has ended
    ((1, 13, 0.1, 99.0), "auto"),  # its process died
    ((1, 11, 0.1, 59.0), "1m"),
    ((1, 11, 0.1, 9999.0), "off"),
])
def test_others_are_left_alone(
    beat: tuple[int, int, float, float], limit: str, ended: list[int]
) -> None:
    look(beat, limit=limit)
    assert ended == []


def test_a_process_at_rest_is_forgotten_but_not_the_one_that_came_after_it() -> None:
    pulse = Pulse()
    pulse.beat(Beat(3, 11, "node", 1.0))
    pulse.beat(Beat(3, 12, "node", 1.0))  # a second try
    pulse.rest(3, 11)
    assert [beat.pid for beat, _ in pulse.beats().values()] == [12]
    pulse.rest(3, 12)
    assert pulse.beats() == {}
