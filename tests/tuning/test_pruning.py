"""What is stopped early follows from the curves alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from raymill.tuning.pruning import Asha, Hyperband, Median, Pruner, Rival, pruner_for
from raymill.tuning.spec import TuningSpec

EPOCHS = 27


def make(scheduler: str, **fields: Any) -> Pruner:
    tuning = TuningSpec.model_validate({"scheduler": scheduler, "grace_epochs": 1, **fields})
    pruner = pruner_for(tuning, True, EPOCHS)
    assert pruner is not None
    return pruner


def race(pruner: Pruner, worths: Sequence[float]) -> dict[int, int]:
    """Trials one after the other, each as good as its worth; the epochs that each was given."""
    ended = list[Rival]()
    for index, worth in enumerate(worths):
        curve = dict[int, float]()
        for epoch in range(1, EPOCHS + 1):
            curve[epoch] = worth * epoch / EPOCHS
            if pruner.stops(Rival(index, curve), EPOCHS, ended):
                break
        ended.append(Rival(index, curve))
    return {rival.index: max(rival.curve) for rival in ended}


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
def test_the_best_runs_to_its_end_and_most_of_the_worst_do_not(scheduler: str) -> None:
    worths = random.Random(0).sample(range(1, 100), 60)
    given = race(make(scheduler), worths)
    best = max(range(60), key=worths.__getitem__)
    assert given[best] == EPOCHS
    assert sum(given.values()) < (0.8 if scheduler != "asha" else 0.5) * 60 * EPOCHS


def test_asha_keeps_the_share_that_the_factor_says() -> None:
    pruner = make("asha", reduction_factor=3)
    others = [Rival(n, {1: n / 9}) for n in range(9)]
    kept = [n for n in range(9) if not pruner.stops(Rival(9, {1: n / 9 + 0.01}), EPOCHS, others)]
    assert kept == [6, 7, 8] or kept == [5, 6, 7, 8]
    assert not pruner.stops(Rival(9, {1: 0.0}), EPOCHS, [])
    assert not pruner.stops(Rival(9, {1: 0.9, 2: 0.0}), EPOCHS, others)  # no rung


def test_asha_compares_the_best_value_by_each_rung() -> None:
    pruner = make("asha", reduction_factor=3)
    others = [Rival(0, {1: 0.1, 2: 0.1, 3: 0.5}), Rival(1, {1: 0.1, 2: 0.9, 3: 0.2}),
              Rival(2, {1: 0.8})]
    assert pruner.stops(Rival(3, {1: 0.1, 2: 0.5, 3: 0.4}), EPOCHS, others)
    assert not pruner.stops(Rival(3, {1: 0.1, 2: 0.95, 3: 0.1}), EPOCHS, others)


def test_less_is_better_where_the_metric_says_so() -> None:
    tuning = TuningSpec.model_validate({"grace_epochs": 1})
    pruner = Asha(tuning, False)
    assert pruner.stops(Rival(1, {1: 0.9}), EPOCHS, [Rival(0, {1: 0.1})])
    assert not pruner.stops(Rival(1, {1: 0.05}), EPOCHS, [Rival(0, {1: 0.1})])


def test_hyperband_compares_within_a_bracket_that_the_seed_draws() -> None:
    one, other = make("hyperband"), make("hyperband", seed=1)
    assert isinstance(one, Hyperband) and isinstance(other, Hyperband)
    brackets = [one.bracket(index) for index in range(200)]
    assert brackets == [one.bracket(index) for index in range(200)]
    assert brackets != [other.bracket(index) for index in range(200)]
    shares = [brackets.count(bracket) for bracket in range(3)]
    assert shares[0] > shares[1] > shares[2] > 0
    late = brackets.index(2)
    good = [Rival(index, {1: 1.0}) for index in range(200)]
    assert not one.stops(Rival(late, {1: 0.0}), EPOCHS, good)


def test_the_median_rule_waits_for_three() -> None:
    pruner = make("median")
    assert isinstance(pruner, Median)
    others = [Rival(n, {1: 0.5}) for n in range(3)]
    assert pruner.stops(Rival(9, {1: 0.4}), EPOCHS, others)
    assert not pruner.stops(Rival(9, {1: 0.6}), EPOCHS, others)
    assert not pruner.stops(Rival(9, {1: 0.4}), EPOCHS, others[:2])


def test_several_objectives_are_not_stopped_by_one_of_them() -> None:
    several = TuningSpec.model_validate({"objectives": ["roc_auc", "model_mb"]})
    assert pruner_for(several, True, EPOCHS) is None
    with pytest.raises(ValueError, match="stops trials by one metric"):
        TuningSpec.model_validate({"objectives": ["roc_auc", "model_mb"], "scheduler": "asha"})
