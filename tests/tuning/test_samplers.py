"""Every sampler draws inside the space, learns, and goes on after a kill with what an unbroken
search draws."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from tuning_ledger import BRANCHED, FLAT, near, open_ledger, play

from raymill.errors import UsageError
from raymill.tuning.cube import from_unit, to_unit
from raymill.tuning.goals import Goal
from raymill.tuning.samplers import grid, grid_size, limits_of
from raymill.tuning.space import complete, to_optuna
from raymill.tuning.spec import Dimension, TuningSpec

SAMPLERS = ["tpe", "gp", "cmaes", "nsga2", "nsga3", "qmc", "random"]
Space = Mapping[str, Dimension]


@pytest.mark.parametrize("space", [FLAT, BRANCHED], ids=["flat", "branched"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_killed_while_a_trial_runs_draws_what_an_unbroken_one_draws(
    tmp_path: Path, sampler: str, space: Space
) -> None:
    trials, kills = (9, (3, 6)) if sampler == "gp" else (24, (3, 17))
    tuning = TuningSpec.model_validate({"trials": trials, "sampler": sampler, "seed": 5,
                                        "scheduler": "none"})
    first = [({"x": 0.9}, "the spec's own values")]
    unbroken = play(open_ledger(None, tuning, space, points=first), trials)
    distributions = to_optuna(space)
    for params in unbroken:
        assert complete(space, params)
        assert all(distributions[n]._contains(distributions[n].to_internal_repr(v))
                   for n, v in params.items())
    broken: list[dict[str, Any]] = []
    for kill in (*kills, trials):
        ledger = open_ledger(tmp_path / "j", tuning, space, points=first)
        broken += play(ledger, kill - len(broken))
        if ledger.remaining:
            ledger.ask()  # the trial that runs when the driver is killed
    assert broken == unbroken


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "nsga2"])
def test_a_sampler_that_learns_comes_nearer_than_its_start(sampler: str) -> None:
    trials = 15 if sampler == "gp" else 60
    space = {"x": Dimension(low=0.0, high=1.0), "y": Dimension(low=0.0, high=1.0)}
    tuning = TuningSpec.model_validate({"trials": trials, "sampler": sampler, "scheduler": "none"})
    drawn = play(open_ledger(None, tuning, space), trials)
    misses = [-near(params) for params in drawn]
    third = trials // 3
    assert sum(misses[-third:]) < 0.7 * sum(misses[:third])


def test_qmc_covers_evenly_in_every_branch() -> None:
    tuning = TuningSpec(trials=64, sampler="qmc")
    drawn = play(open_ledger(None, tuning, BRANCHED), 64)
    halves = [sum(low <= params["x"] < low + 0.25 for params in drawn) for low in (0, 0.5, 0.75)]
    assert halves == [16, 16, 16]
    assert sum(params["model.family"] == "one" for params in drawn) == 32


@pytest.mark.parametrize("given", [
    FloatDistribution(1e-4, 1.0, log=True), FloatDistribution(0.0, 1.0, step=0.25),
    IntDistribution(1, 64, log=True), IntDistribution(2, 10, step=4), FloatDistribution(-3, 5.5),
])
def test_the_cube_holds_each_value_of_a_distribution(given: Any) -> None:
    shares = [share / 200 for share in range(201)]
    values = [from_unit(given, share) for share in shares]
    assert (values[0], values[-1]) == (pytest.approx(given.low), given.high)
    assert all(given._contains(given.to_internal_repr(value)) for value in values)
    assert all(from_unit(given, to_unit(given, value)) == pytest.approx(value) for value in values)


def test_a_grid_is_run_once_and_knows_its_size() -> None:
    space = {"k": Dimension(low=1, high=3), "model.family": Dimension.model_validate({"choice": {
        "one": {"z": {"low": 0.0, "high": 1.0, "step": 0.5}}, "two": {}}})}
    assert grid_size(space) == 3 * (3 + 1)
    ledger = open_ledger(None, TuningSpec(trials=20, sampler="grid"), space,
                         points=[({"k": 2, "model.family": "two"}, "own")])
    assert ledger.total == ledger.remaining == 12
    drawn = play(ledger, 12, lambda params: 1.0)
    assert drawn[0] == {"k": 2, "model.family": "two"}
    assert ledger.remaining == 0
    assert len({tuple(sorted(params.items())) for params in drawn}) == 12
    assert grid(space, 0) != grid(space, 1)
    assert "12 points, so 12 trials" in limits_of(TuningSpec(trials=20, sampler="grid"), space)[0]
    assert "5 of the grid's 12" in limits_of(TuningSpec(trials=5, sampler="grid"), space)[0]


@pytest.mark.parametrize(("sampler", "space", "said"), [
    ("grid", {"x": Dimension(low=0.0, high=1.0)}, "every number from 0 to 1"),
    ("grid", {"x": Dimension(low=0, high=10**7)}, "x alone has"),
    ("grid", {f"x{n}": Dimension(low=0, high=99) for n in range(4)}, "at most 100000 points"),
    ("cmaes", {"x": Dimension(low=0.0, high=1.0), "c": Dimension(choice=[1, 2])}, "two or more"),
])
def test_what_a_sampler_can_t_search_is_refused(sampler: str, space: Space, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        limits_of(TuningSpec.model_validate({"sampler": sampler}), space)


@pytest.mark.parametrize(("sampler", "said"), [
    ("cmaes", "model.family, one/z, two/z are drawn at random"), ("gp", "in a branch"),
    ("nsga2", "whole trials only"),
])
def test_what_a_sampler_leaves_to_chance_is_told(sampler: str, said: str) -> None:
    notes = limits_of(TuningSpec.model_validate({"sampler": sampler}), BRANCHED)
    assert any(said in text for text in notes)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2", "nsga3", "random", "qmc"])
def test_several_objectives_and_constraints_reach_the_sampler(sampler: str) -> None:
    trials = 7 if sampler == "gp" else 16
    tuning = TuningSpec.model_validate({
        "trials": trials, "sampler": sampler, "objectives": ["roc_auc", "model_mb"],
        "constraints": ["model_mb <= 0.5"]})
    ledger = open_ledger(None, tuning, {"x": Dimension(low=0.0, high=1.0),
                                        "y": Dimension(low=0.0, high=1.0)})
    play(ledger, trials, lambda params: params["x"], lambda params: {"model_mb": params["x"]})
    front = ledger.front()
    assert front and all(record.measures["model_mb"] <= 0.5 for record in front)
    assert ledger.study.best_trials
    assert ledger.study.trials[0].constraints.keys() == {"model_mb <= 0.5"}


def test_a_goal_s_direction_is_its_own() -> None:
    with pytest.raises(ValueError, match="better when you maximize"):
        Goal(metric="roc_auc", direction="minimize")
