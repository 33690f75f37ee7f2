"""Generations of trials: the worst go on with the weights of the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tuning_ledger import near, open_ledger, play

from raymill.errors import UsageError
from raymill.training.spec import TrainingSpec
from raymill.tuning.population import VARIED, Population
from raymill.tuning.records import TrialRecord
from raymill.tuning.spec import Dimension, TuningSpec

SPACE = {"training.lr": Dimension(low=1e-4, high=1e-1, log=True),
         "model.width": Dimension(choice=[8, 16]),
         "model.dropout": Dimension(low=0.0, high=0.5)}


def population(trials: int = 12, size: int = 4, epochs: int = 9, **fields: Any) -> Population:
    tuning = TuningSpec.model_validate({"trials": trials, "scheduler": "pbt", "population": size})
    return Population(tuning, fields.get("space", SPACE), TrainingSpec(epochs=epochs),
                      fields.get("family", "mlp"))


def before(values: list[float | None]) -> dict[int, TrialRecord]:
    return {
        member: TrialRecord(10 + member, "failed" if value is None else "complete", value,
                            {"training.lr": 0.01, "model.width": 8 * (1 + member % 2),
                             "model.dropout": 0.1 * member}, {}, 1.0)
        for member, value in enumerate(values)
    }


def test_the_epochs_are_shared_out_without_gap() -> None:
    segments = [population(epochs=10).segment(index) for index in range(12)]
    assert [(s.start, s.until) for s in segments[::4]] == [(0, 4), (4, 7), (7, 10)]
    assert [s.member for s in segments[:5]] == [0, 1, 2, 3, 0]


def test_the_worst_take_over_the_best_and_vary_it() -> None:
    past = before([0.5, 0.9, 0.7, None])
    same, segment = population().next(4, past, True)
    assert (same, segment.donor) == (past[0].params, 10)
    moved, segment = population().next(7, past, True)
    assert (segment.donor, segment.start, segment.until) == (11, 3, 6)
    assert moved["model.width"] == past[1].params["model.width"]  # the weights need it
    assert moved["training.lr"] != past[1].params["training.lr"]
    assert 1e-4 <= moved["training.lr"] <= 1e-1
    assert population().next(7, past, True) == (moved, segment)
    less = before([0.5, 0.9, 0.7, 0.6])  # is better: 0.9 is the worst
    assert population().next(5, less, False)[1].donor == 10


def test_a_search_killed_in_a_generation_goes_on_as_it_would_have(tmp_path: Path) -> None:
    tuning = TuningSpec.model_validate({"trials": 12, "scheduler": "pbt", "population": 4})

    def ledger(path: Path | None) -> Any:
        return open_ledger(path, tuning, SPACE, population=population())

    def score(params: Any) -> float:
        return near({"x": params["training.lr"]})

    whole = ledger(None)
    unbroken = play(whole, 12, score)
    broken = list[dict[str, Any]]()
    for kill in (2, 6, 12):
        gone_on = ledger(tmp_path / "j")
        broken += play(gone_on, kill - len(broken), score)
        if gone_on.remaining:
            assert gone_on.ready()
            gone_on.ask()
    assert broken == unbroken
    donors = [trial.user_attrs["segment"]["donor"] for trial in whole.study.trials]
    assert donors[:4] == [None] * 4 and len(set(donors[4:8])) <= 4
    assert {t.user_attrs["segment"]["generation"] for t in whole.study.trials} == {0, 1, 2}
    assert set(whole.donors()) >= set(range(4, 12))


def test_a_generation_waits_for_the_one_before() -> None:
    tuning = TuningSpec.model_validate({"trials": 4, "scheduler": "pbt", "population": 2})
    ledger = open_ledger(None, tuning, SPACE, population=population(4, 2))
    (one, _), (other, _) = ledger.ask(), ledger.ask()
    assert not ledger.ready()
    for number in (one, other):
        ledger.epoch(number, 1, 0.5)
        ledger.end(number, "complete")
    assert ledger.ready()


@pytest.mark.parametrize(("fields", "said"), [
    ({"space": {"model.width": SPACE["model.width"]}}, "none of them is searched"),
    ({"family": "gbdt"}, "one family of networks"),
    ({"epochs": 2}, "not one each"),
    ({"space": {**SPACE, "training.epochs": Dimension(low=1, high=3)}}, "shares out"),
])
def test_what_a_population_can_t_do_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        population(**fields)


def test_what_is_varied_are_fields_of_the_spec() -> None:
    assert {path.removeprefix("training.") for path in VARIED if path.startswith("training.")} <= (
        TrainingSpec.model_fields.keys())
