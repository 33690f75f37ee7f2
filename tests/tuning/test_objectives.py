"""Fronts, constraints and the rule that chooses."""

from __future__ import annotations

import pytest

from raymill.tuning.goals import parse_limit, parse_rule
from raymill.tuning.objectives import Objectives
from raymill.tuning.records import State, TrialRecord
from raymill.tuning.spec import TuningSpec


def record(number: int, auc: float, size: float | None, state: State = "complete") -> TrialRecord:
    measures = {"roc_auc": auc} | ({"model_mb": size} if size is not None else {})
    return TrialRecord(number, state, auc, {}, {1: auc}, 1.0, measures=measures)


RECORDS = [record(0, 0.90, 10.0), record(1, 0.89, 4.0), record(2, 0.80, 1.0),
           record(3, 0.85, 5.0), record(4, 0.95, None, "pruned"), record(5, 0.99, 0.1, "failed")]


def objectives(**fields: object) -> Objectives:
    return Objectives.of("roc_auc", TuningSpec.model_validate(
        {"objectives": ["roc_auc", "model_mb"], **fields}))


def test_the_front_holds_what_none_beats_on_all() -> None:
    assert [r.number for r in objectives().front(RECORDS)] == [0, 1, 2]


@pytest.mark.parametrize(("rule", "chosen"), [
    ("knee", 1), ("best", 0), ("best:roc_auc", 0), ("best:model_mb", 2),
    ("within:roc_auc:0.02", 1), ("within:roc_auc:2%", 1), ("within:roc_auc:0.001", 0),
    ("within:model_mb:500%", 1),
])
def test_the_rule_chooses_from_the_front(rule: str, chosen: int) -> None:
    able = objectives(choose=rule)
    assert able.choose(able.front(RECORDS)).number == chosen


def test_constraints_leave_the_feasible() -> None:
    able = objectives(constraints=["model_mb <= 3.9", "roc_auc >= 0.7"])
    assert [r.number for r in able.front(RECORDS)] == [2]
    assert able.excesses(RECORDS[0].measures) == {
        "model_mb <= 3.9": pytest.approx(6.1), "roc_auc >= 0.7": pytest.approx(-0.2)}


@pytest.mark.parametrize(("fields", "said"), [
    ({"objectives": ["model_mb"]}, "first objective is a validation metric"),
    ({"objectives": ["roc_auc", "roc_auc"]}, "must differ"),
    ({"objectives": ["roc_acu"]}, "did you mean 'roc_auc'"),
    ({"objectives": ["roc_auc", "model_mb"], "sampler": "cmaes"}, "one objective only"),
    ({"choose": "knee"}, "chooses among several"),
    ({"choose": "best:rmse"}, "names one of the objectives"),
    ({"choose": "fastest"}, "knee, best"),
    ({"constraints": ["p99_latency_ms < 5"]}, "measure <= number"),
    ({"constraints": ["p98_latency_ms <= 5"]}, "did you mean 'p99_latency_ms'"),
    ({"population": 4}, "a population is pbt's"),
    ({"storage": "postgresql://me:secret@db/x"}, "a password must not stand in a spec"),
    ({"storage": "sqllite"}, "did you mean 'sqlite'"),
    ({"points": [{}]}, "at least one field"),
])
def test_what_does_not_fit_together_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        TuningSpec.model_validate(fields)
    if "storage" in fields:
        assert "secret" not in str(caught.value).split("but got")[0].split("input_value")[0]


def test_limits_and_rules_are_read() -> None:
    limit = parse_limit(" p99_latency_ms <= 5e0 ")
    assert (limit.text, limit.excess(7)) == ("p99_latency_ms <= 5", 2)
    assert parse_limit("roc_auc >= 0.8").excess(0.9) == pytest.approx(-0.1)
    assert parse_rule("within:roc_auc:1%").tolerance == 0.01
