"""The first budget that is used up ends a search, and is named."""

from __future__ import annotations

from typing import Any

import pytest
from tuning_ledger import open_ledger

from raymill.tuning import budget as budget_module
from raymill.tuning.budget import Budget
from raymill.tuning.ledger import Ledger
from raymill.tuning.spec import BudgetSpec, TuningSpec


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(budget_module, "time", clock)
    return clock


def make(ledger: Ledger, **fields: Any) -> Budget:
    return Budget(BudgetSpec(**fields), ledger, cpu=2.0, gpu=0.5)


def run_trial(ledger: Ledger, budget: Budget, value: float) -> None:
    number, _ = ledger.ask()
    ledger.epoch(number, 1, value)
    ledger.end(number, "complete")
    budget.news()


def test_time_counts_over_all_calls(clock: Clock) -> None:
    ledger = open_ledger(None, TuningSpec())
    first = make(ledger, wall="60s")
    clock.now += 40
    first.tick()
    first.write()
    assert not first.ended_by
    again = make(ledger, wall="60s")
    clock.now += 19
    again.tick()
    assert not again.ended_by
    clock.now += 1
    again.tick()
    assert again.ended_by == "tuning.budget.wall of 60s"
    again.write()
    assert make(ledger, wall="60s").ended_by
    assert not make(ledger, wall="61s").ended_by


@pytest.mark.parametrize(("limit", "seconds"), [
    ({"cpu_hours": 1.0}, 900), ({"gpu_hours": 1.0}, 3600)])
def test_compute_is_what_running_trials_hold(
    clock: Clock, limit: dict[str, float], seconds: int
) -> None:
    ledger = open_ledger(None, TuningSpec())
    budget = make(ledger, **limit)
    clock.now += 10 * seconds
    budget.tick()  # nothing runs
    assert not budget.ended_by
    ledger.ask()
    ledger.ask()
    clock.now += seconds - 1
    budget.tick()
    assert not budget.ended_by
    clock.now += 1
    budget.tick()
    assert budget.ended_by == f"tuning.budget.{next(iter(limit))} of 1.0"


def test_a_target_is_reached_by_what_still_runs() -> None:
    ledger = open_ledger(None, TuningSpec())
    budget = make(ledger, target=0.9)
    run_trial(ledger, budget, 0.89)
    assert not budget.ended_by
    ledger.epoch(ledger.ask()[0], 1, 0.9)
    budget.news()
    assert budget.ended_by == "tuning.budget.target of 0.9, reached with 0.9"


def test_a_target_below_is_reached_from_above() -> None:
    ledger = open_ledger(None, TuningSpec(), metric="log_loss")
    budget = make(ledger, target=0.3)
    run_trial(ledger, budget, 0.4)
    assert not budget.ended_by
    run_trial(ledger, budget, 0.2)
    assert "target" in budget.ended_by


def test_a_constraint_still_forbids_what_runs() -> None:
    ledger = open_ledger(None, TuningSpec(constraints=["model_mb <= 1"]))
    budget = make(ledger, target=0.9)
    number, _ = ledger.ask()
    ledger.epoch(number, 1, 0.95)
    budget.news()
    assert not budget.ended_by
    ledger.end(number, "complete", "", {"model_mb": 0.5})
    budget.news()
    assert budget.ended_by


def test_a_plateau_is_so_many_trials_without_a_better_one() -> None:
    ledger = open_ledger(None, TuningSpec())
    budget = make(ledger, plateau=2)
    for value in (0.5, 0.4, 0.6, 0.6):
        run_trial(ledger, budget, value)
        assert not budget.ended_by
    run_trial(ledger, budget, 0.1)
    assert budget.ended_by == "tuning.budget.plateau: 2 trials without a better one"
    assert make(ledger, plateau=2).ended_by
