from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from raymill.serving.answers import Answer, Request, Route, fixed
from raymill.serving.autoscale import SETTLE_S, HoldP99
from raymill.serving.pace import WINDOW_S, Pace
from raymill.serving.scaling import HOLD_P99, autoscaling
from raymill.serving.spec import ReplicasSpec, ServingSpec

OK = Answer(b"")
PREDICT = Route("POST", "/predict", fixed(OK))


def request(version: int = 1) -> Request:
    return Request({"headers": []}, None, PREDICT, {}, version=version)  # type: ignore[arg-type]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_late_are_slow_shed_and_failed_predictions_and_no_other_answers() -> None:
    pace = Pace(100, Clock())
    for seconds, status in [(0.01, 200), (0.06, 200), (0.2, 200), (0.001, 429), (0.001, 504),
                            (0.001, 422)]:
        pace(request(), Answer(b"", status=status), seconds)
    pace(request(version=0), OK, 9.0)
    pace(None, OK, 9.0)
    assert pace.counts() == {"asked": 6, "late": 3, "near": 4}


def test_only_the_last_seconds_count() -> None:
    clock = Clock()
    pace = Pace(100, clock)
    pace(request(), OK, 0.2)
    clock.now += WINDOW_S - 1
    pace(request(), OK, 0.01)
    assert pace.counts() == {"asked": 2, "late": 1, "near": 1}
    clock.now += 1
    assert pace.counts() == {"asked": 1, "late": 0, "near": 0}
    clock.now += WINDOW_S
    assert pace.counts() == {"asked": 0, "late": 0, "near": 0}


class Scaling:
    """The policy over a service whose replicas count what a test says."""

    def __init__(self, replicas: int, least: int = 1) -> None:
        self.policy, self.state, self.now = HoldP99(), dict[str, Any](), 0.0
        self.replicas = self.target = replicas
        self.least = least

    def wants(self, asked: float, late: float, near: float, *, after: float = SETTLE_S) -> int:
        """What it wants; the counts are those of each of two replicas."""
        self.now += after
        metrics = {name: {"a": value, "b": value} for name, value in
                   [("asked", asked), ("late", late), ("near", near)]}
        wanted, self.state = self.policy(SimpleNamespace(
            policy_state=self.state, current_time=self.now, current_num_replicas=self.replicas,
            target_num_replicas=self.target, aggregated_metrics=metrics,
            total_num_requests=asked, capacity_adjusted_min_replicas=self.least))
        return wanted


def settled(replicas: int) -> Scaling:
    scaling = Scaling(replicas)
    scaling.wants(100, 0, 50)
    return scaling


def test_more_replicas_are_wanted_when_more_than_one_in_a_hundred_is_late() -> None:
    assert settled(1).wants(500, 11, 50) == 2
    assert settled(4).wants(500, 11, 50) == 6
    assert settled(1).wants(500, 5, 50) == 1
    assert settled(1).wants(10, 1, 10) == 1  # that may be chance


def test_fewer_are_wanted_only_when_the_objective_is_held_twice_over() -> None:
    assert settled(3).wants(500, 0, 5) == 2
    assert settled(3).wants(500, 0, 6) == 3
    assert settled(1).wants(500, 0, 0) == 1


def test_nothing_is_decided_until_the_last_decision_shows() -> None:
    scaling = settled(1)
    scaling.target = 2
    assert scaling.wants(500, 400, 400) == 2  # still starting
    scaling.replicas = 2
    assert scaling.wants(500, 400, 400, after=0.5) == 2
    assert scaling.wants(500, 400, 400, after=SETTLE_S - 1) == 2
    assert scaling.wants(500, 400, 400, after=1) == 3


@pytest.mark.parametrize("least", [0, 1])
def test_a_service_that_nobody_asks_goes_to_its_least(least: int) -> None:
    assert Scaling(3, least).wants(0, 0, 0) == least


def test_serve_is_told_of_the_policy_and_starts_with_one_replica_even_where_none_is_the_least() -> None:
    spec = ServingSpec(replicas=ReplicasSpec(min=0, target_p99_ms=50))
    told = autoscaling(spec)
    assert told["policy"] == {"policy_function": HOLD_P99}
    assert (told["min_replicas"], told["initial_replicas"]) == (0, 1)
    assert "policy" not in autoscaling(ServingSpec())
    assert spec.hold_s > ServingSpec().hold_s
