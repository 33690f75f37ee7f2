"""What a search says of itself follows from its trials."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymill.training.spec import ModelSpec, TrainingSpec
from raymill.tuning.advice import advise, levels, rungs
from raymill.tuning.importance import Importances, importances
from raymill.tuning.records import SearchResult, TrialRecord
from raymill.tuning.spec import Dimension

SPACE = {
    "training.lr": Dimension(low=1e-4, high=1e-2, log=True),
    "model.dropout": Dimension(low=0.0, high=0.5),
    "model.family": Dimension.model_validate(
        {"choice": {"linear": {}, "mlp": {"model.depth": {"low": 1, "high": 4}}}}),
}


def record(number: int, value: float | None, epochs: int = 8, cause: str = "",
           **params: Any) -> TrialRecord:
    given = {key.replace("_", ".", 1): v for key, v in params.items()}
    state = "failed" if value is None else "complete" if epochs == 8 else "pruned"
    values = {e: (value or 0) - 0.01 * (epochs - e) for e in range(1, epochs + 1)}
    return TrialRecord(number, state, value, given, {} if value is None else values, 1.0, cause)


def result(trials: list[TrialRecord]) -> SearchResult:
    best = max((t for t in trials if t.value is not None), key=lambda t: t.value or 0)
    return SearchResult(
        best_params=best.params, best_value=best.value or 0, best_trial=best.number,
        metric="roc_auc", maximize=True, trials=trials, study_path=Path("x"), study_name="x",
        resumed=0, space=SPACE, model=ModelSpec(), training=TrainingSpec())


def told(trials: list[TrialRecord]) -> str:
    found = result(trials)
    return "\n".join(map(str, advise(found, importances(found), epochs=8)))


def drawn(rng: np.random.Generator) -> dict[str, Any]:
    family = "mlp" if rng.random() < 0.7 else "linear"
    depth = {"model_depth": int(rng.integers(1, 5))} if family == "mlp" else {}
    return {"training_lr": 10 ** rng.uniform(-4, -2), "model_dropout": rng.uniform(0, 0.5),
            "model_family": family, **depth}


def test_what_decided_the_value_has_the_largest_share_and_what_did_not_may_be_fixed() -> None:
    rng = np.random.default_rng(0)
    trials = []
    for number in range(60):
        params = drawn(rng)
        value = 0.8 + 0.05 * np.log10(params["training_lr"]) + 0.004 * params.get("model_depth", 0)
        trials.append(record(number, float(value), **params))
    shares = importances(result(trials))
    assert next(iter(shares.shares)) == "training.lr"
    assert sum(shares.shares.values()) == pytest.approx(1)
    assert shares.below == {"mlp": {"model.depth": 1.0}}
    text = told(trials)
    assert "what mattered most was training.lr" in text
    assert "model.dropout" in text and "fix what you do not need to search" in text
    assert "the best model.depth, 4, lies at the high bound of its range (4)" in text
    assert "widen it, high: 5" in text


def test_a_best_value_inside_its_range_is_no_reason_to_widen() -> None:
    trials = [record(n, 0.9 - abs(n - 5) / 10, training_lr=1e-3 * (1 + n / 100)) for n in range(9)]
    assert "bound" not in told(trials)


@pytest.mark.parametrize(("best", "said"), [(3, "a plateau"), (19, "still gaining")])
def test_plateaus_and_gains_are_told_apart(best: int, said: str) -> None:
    trials = [record(n, 0.9 if n == best else 0.5 + n / 1000, training_lr=1e-3) for n in range(20)]
    assert said in told(trials)


def test_failures_and_saved_epochs_are_counted_by_cause() -> None:
    trials = [record(0, 0.9, training_lr=1e-3), record(1, 0.5, epochs=2, training_lr=1e-3),
              record(2, None, cause="out of memory"), record(3, None, cause="out of memory")]
    text = told(trials)
    assert "1 of 4 trials were stopped early; 10 of the 16 epochs" in text
    assert "2 of 4 trials failed: out of memory" in text


def test_few_trials_say_so() -> None:
    found = importances(result([record(0, 0.9, training_lr=1e-3)]))
    assert found == Importances({}, 1, note=found.note) and "too few trials" in found.note


def test_rungs_count_who_reached_and_who_stopped() -> None:
    assert levels(3, 3, 20) == [3, 9, 20]
    assert levels(3, 2.5, 20) == [3, 7, 18, 20]  # where ASHA decides
    trials = [record(0, 0.9).to_dict(), record(1, 0.5, epochs=2).to_dict(),
              record(2, 0.6, epochs=2).to_dict(), record(3, None).to_dict()]
    rows = rungs(trials, [2, 8], True)
    assert [(r["epoch"], r["reached"], r["stopped"]) for r in rows] == [(2, 3, 2), (8, 1, 0)]
    assert rows[-1]["best"] == pytest.approx(0.9)
