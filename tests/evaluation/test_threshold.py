from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from raymill.evaluation.spec import CostSpec, ThresholdSpec
from raymill.evaluation.threshold import choose

RNG = np.random.default_rng(1)
Y = (RNG.random(400) < 0.2).astype(int)
P = np.clip(0.2 + 0.25 * (Y - 0.2) + RNG.normal(0, 0.15, 400), 0, 1).round(2)


def cost(cut: float, false_positive: float, false_negative: float) -> float:
    chosen = cut <= P
    wrong = false_positive * np.sum(chosen & (Y == 0)) + false_negative * np.sum(~chosen & (Y == 1))
    return float(wrong / len(Y))


def test_without_a_rule_the_cut_is_one_half() -> None:
    assert choose(Y, P, ThresholdSpec())["threshold"] == 0.5


def test_a_fixed_cut_is_kept() -> None:
    assert choose(Y, P, ThresholdSpec(fixed=0.37))["threshold"] == 0.37


# No cut of a fine grid costs less than the chosen one, whatever the two costs are.
@pytest.mark.parametrize("costs", [(1, 1), (5, 120), (10, 1), (0, 1), (1, 0)])
def test_the_cheapest_cut_is_found(costs: tuple[float, float]) -> None:
    rule = ThresholdSpec(cost=CostSpec(false_positive=costs[0], false_negative=costs[1]))
    chosen = choose(Y, P, rule)
    assert chosen["value"] == pytest.approx(cost(chosen["threshold"], *costs))
    assert chosen["value"] <= min(cost(cut, *costs) for cut in np.linspace(0, 1.01, 500)) + 1e-12
    assert chosen["costs"] == {"false_positive": costs[0], "false_negative": costs[1]}


@pytest.mark.parametrize("name", ["f1", "accuracy", "balanced_accuracy"])
def test_the_best_cut_of_a_metric_is_found(name: str) -> None:
    chosen = choose(Y, P, ThresholdSpec(best=name))  # type: ignore[arg-type]
    others = [choose(Y, P, ThresholdSpec(fixed=cut)) for cut in (0.2, 0.3, 0.4)]
    if name == "f1":
        assert chosen["value"] == pytest.approx(f1_score(Y, chosen["threshold"] <= P))
        assert all(chosen["value"] >= f1_score(Y, o["threshold"] <= P) for o in others)
    assert chosen["rows"] == 400


# Scores that all agree leave two cuts: everybody or nobody.
def test_constant_scores_have_a_cut() -> None:
    rare = ThresholdSpec(cost=CostSpec(false_positive=100, false_negative=1))
    assert choose(Y, np.full(400, 0.2), rare)["threshold"] > 0.2
    dear = ThresholdSpec(cost=CostSpec(false_positive=1, false_negative=100))
    assert choose(Y, np.full(400, 0.2), dear)["threshold"] <= 0.2
