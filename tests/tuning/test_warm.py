"""What an earlier study found is known, or tried first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tuning_ledger import play
from tuning_problem import FakePrepared

from raymill.errors import UsageError
from raymill.events import Event
from raymill.training.spec import ModelSpec, TrainingSpec
from raymill.tuning.ledger import Ledger
from raymill.tuning.objectives import Objectives
from raymill.tuning.search import what_is_searched
from raymill.tuning.spec import TuningSpec
from raymill.tuning.storage import held
from raymill.tuning.warm import take_over

LR = {"training.lr": {"low": 1e-3, "high": 1e-1, "log": True}}


def start(out: Path, name: str, warm: str, trials: int = 0, context: str = "same", **fields: Any
          ) -> tuple[Ledger, list[str]]:
    """A study in `out`, warmed as asked, with so many trials played."""
    told: list[Event] = []
    tuning = TuningSpec.model_validate({"trials": 10, "warm_start": warm, "space": LR, **fields})
    what = what_is_searched(ModelSpec(family="linear"), TrainingSpec(), None, tuning,
                            FakePrepared(), None)  # type: ignore[arg-type]
    with held(out, tuning.storage) as storage:
        ledger = Ledger(storage, f"study-{out.name}", Objectives.of("roc_auc", tuning), tuning,
                        what.space)
        take_over(ledger, tuning, what, context, name, out, told.append)
        play(ledger, trials, lambda params: -abs(params["training.lr"] - 0.01),
             lambda params: {"model_mb": 1.0})
    return ledger, [event.data["text"] for event in told]


def test_results_of_the_same_job_are_known_and_not_counted(tmp_path: Path) -> None:
    first, _ = start(tmp_path / "a", "fraud", "none", trials=6)
    wider = {"space": {"training.lr": {"low": 1e-4, "high": 1.0, "log": True},
                       "training.weight_decay": {"low": 0.0, "high": 0.1}}}
    again, told = start(tmp_path / "b", "fraud", "previous", **wider)
    assert told == ["6 trials are known from study-a"]
    assert again.remaining == 10
    assert again.winner().value == first.winner().value  # type: ignore[union-attr]
    assert again.records()[0].origin == "study-a, trial 0"
    own = TrainingSpec().weight_decay
    assert all(record.params["training.weight_decay"] == own for record in again.records())
    third, _ = start(tmp_path / "c", "fraud", "study-b", constraints=["model_mb <= 0.5"])
    assert len(third.records()) == 6 and third.winner() is None


def test_known_parameters_are_answered_from_the_earlier_study(tmp_path: Path) -> None:
    first, _ = start(tmp_path / "a", "fraud", "none", trials=3)
    again, _ = start(tmp_path / "b", "fraud", "previous")
    params = first.records()[1].params
    again.study.enqueue_trial(params)
    known = again.repeat(again.ask()[0])
    assert known is not None and known.origin == "known from study-a, trial 1"
    assert known.value == first.records()[1].value
    assert again.remaining == 9


def test_what_does_not_lie_in_the_space_is_left_out(tmp_path: Path) -> None:
    start(tmp_path / "a", "fraud", "none", trials=6)
    narrow = {"space": {"training.lr": {"low": 9e-2, "high": 1e-1}}}
    _, told = start(tmp_path / "b", "fraud", "previous", **narrow)
    assert told == ["0 trials are known from study-a"]


def test_the_best_points_of_other_data_are_tried_first(tmp_path: Path) -> None:
    first, _ = start(tmp_path / "a", "fraud", "none", trials=8, context="july")
    again, told = start(tmp_path / "b", "fraud", "previous", trials=1, context="august",
                        storage="sqlite")
    assert "its best 5 points are tried first" in told[0]
    assert again.records()[0].params == first.winner().params  # type: ignore[union-attr]
    assert again.records()[0].origin.startswith("study-a, trial")
    _, told = start(tmp_path / "c", "fraud", "study-b", context="august")
    assert told == ["1 trials are known from study-b"]


def test_only_a_study_of_the_same_name_is_the_previous_one(tmp_path: Path) -> None:
    start(tmp_path / "a", "churn", "none", trials=2)
    ledger, told = start(tmp_path / "b", "fraud", "previous")
    assert told == ["no earlier study of fraud: the search starts cold"]
    assert not ledger.records()
    with pytest.raises(UsageError, match=r"a study \(study-a, study-b\), but got 'study-x'"):
        start(tmp_path / "c", "fraud", "study-x")
