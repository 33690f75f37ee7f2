"""The ledger forgets nothing that finished and repeats nothing that did."""

from pathlib import Path
from typing import Any

import optuna
import pytest
import tuning_ledger
from tuning_ledger import play

from raymill.errors import UsageError
from raymill.tuning.ledger import Ledger
from raymill.tuning.spec import Dimension, TuningSpec
from raymill.tuning.storage import held

SPACE = {"x": Dimension(low=0.0, high=1.0), "k": Dimension(low=1, high=9)}
FIRST = {"x": 0.5, "k": 3}


def open_ledger(path: Path | None, trials: int = 20, **fields: Any) -> Ledger:
    tuning = TuningSpec.model_validate({"trials": trials, **fields})
    return tuning_ledger.open_ledger(path, tuning, SPACE,
                                     points=[(FIRST, "the spec's own values")])


def test_the_spec_s_own_values_come_first(tmp_path: Path) -> None:
    assert open_ledger(tmp_path / "j").ask()[1] == FIRST


def test_a_search_cut_off_and_resumed_draws_what_an_unbroken_one_draws(tmp_path: Path) -> None:
    unbroken = play(open_ledger(tmp_path / "a"), 20)
    drawn = play(open_ledger(tmp_path / "b"), 7)
    _, lost = open_ledger(tmp_path / "b").ask()
    resumed = open_ledger(tmp_path / "b")
    assert resumed.resumed == 7
    assert resumed.remaining == 13
    assert drawn + play(resumed, 13) == unbroken
    assert lost == unbroken[7]
    states = {t.state for t in resumed.study.trials}
    assert optuna.trial.TrialState.RUNNING not in states


def test_parameters_of_a_zombie_are_queued_once(tmp_path: Path) -> None:
    open_ledger(tmp_path / "j").ask()
    for _ in range(3):
        ledger = open_ledger(tmp_path / "j")
    waiting = ledger.study.get_trials(states=(optuna.trial.TrialState.WAITING,))
    assert len(waiting) == 1


def test_a_trial_that_is_run_again_knows_those_it_goes_on_from(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "j")
    done, cut = ledger.ask()[0], ledger.ask()[0]
    ledger.epoch(done, 1, 0.5)
    ledger.end(done, "complete")
    ledger.cut_off(cut, "interrupted")
    assert ledger.cut_short() == {cut}
    ledger = open_ledger(tmp_path / "j")
    again, _ = ledger.ask()  # and then the driver dies
    assert ledger.again(again) == [cut]
    ledger = open_ledger(tmp_path / "j")
    assert ledger.cut_short() == {again, cut}
    last, _ = ledger.ask()
    assert ledger.again(last) == [again, cut]
    ledger.epoch(last, 1, 0.6)
    assert ledger.end(last, "complete").origin == f"again: trial {cut} was cut off"
    assert ledger.again(done) == [] and ledger.cut_short() == set()


def test_a_trial_without_a_finite_value_has_failed(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "j")
    number, _ = ledger.ask()
    ledger.epoch(number, 1, float("nan"))
    record = ledger.end(number, "complete")
    assert record.state == "failed"
    assert "finite" in record.cause


def test_the_value_is_the_best_epoch_s(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "j")
    number, _ = ledger.ask()
    for epoch, value in enumerate((0.1, 0.9, 0.4), start=1):
        ledger.epoch(number, epoch, value)
    assert ledger.end(number, "complete").value == 0.9
    assert ledger.study.best_value == 0.9


def test_an_epoch_is_new_once(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "j")
    number, _ = ledger.ask()
    assert [ledger.epoch(number, epoch, 0.5) for epoch in (1, 1, 2)] == [True, False, True]


def test_trials_that_all_failed_are_run_again(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "j", trials=2)
    for _ in range(2):
        ledger.end(ledger.ask()[0], "failed", "broken")
    assert ledger.remaining == 0
    again = open_ledger(tmp_path / "j", trials=2)
    assert again.remaining == 2
    assert again.ask()[1] == FIRST


def test_half_a_line_and_a_lock_left_by_a_kill_are_mended(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    with held(tmp_path, "journal"):
        play(open_ledger(path), 2)
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"wor')
    (tmp_path / "study.journal.lock").symlink_to(path)
    with held(tmp_path, "journal"):
        ledger = open_ledger(path)
        assert ledger.resumed == 2
        play(ledger, 1)
        assert open_ledger(path).resumed == 3


def test_a_second_search_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with held(tmp_path, "journal"), pytest.raises(UsageError, match="another process"):
        with held(tmp_path, "journal"):
            pass


def test_known_parameters_are_not_run_again(tmp_path: Path) -> None:
    points = [(FIRST, "a"), (FIRST, "b"), ({**FIRST, "k": 4}, "c")]
    for end in ("complete", "pruned"):
        tuning = TuningSpec(trials=5, constraints=["model_mb <= 1"])
        ledger = tuning_ledger.open_ledger(tmp_path / end, tuning, SPACE, points=points)
        number, _ = ledger.ask()
        assert ledger.repeat(number) is None
        for epoch, value in ((1, 0.5), (2, 0.7)):
            ledger.epoch(number, epoch, value, {"f1": value / 2})
        ledger.end(number, end, "", {"model_mb": 2.0} if end == "complete" else None)
        known = ledger.repeat(ledger.ask()[0])
        assert known is not None
        assert (known.state, known.values) == (end, {1: 0.5, 2: 0.7})
        assert known.origin == "known from trial 0"
        assert known.measures == ledger.records()[0].measures
        assert known.measures["f1"] == 0.35
        assert ledger.repeat(ledger.ask()[0]) is None
        assert ledger.remaining == 2


def test_what_a_budget_cut_short_is_not_known() -> None:
    points = [(FIRST, "a"), (FIRST, "b")]
    ledger = tuning_ledger.open_ledger(None, TuningSpec(), SPACE, points=points)
    number, _ = ledger.ask()
    ledger.epoch(number, 1, 0.5)
    ledger.end(number, "complete", "cut short by tuning.budget.wall")
    assert ledger.repeat(ledger.ask()[0]) is None


def test_a_trial_killed_while_it_was_drawn_is_drawn_again(tmp_path: Path) -> None:
    unbroken = play(open_ledger(None), 2)
    ledger = open_ledger(tmp_path / "j")
    play(ledger, 1)
    trial = ledger.study.ask()
    trial.suggest_float("x", 0.0, 1.0)  # and then the driver dies
    assert play(open_ledger(tmp_path / "j"), 1) == unbroken[1:]


def test_nothing_feasible_has_no_winner_and_an_unmeasured_trial_no_place_on_a_front() -> None:
    tuning = TuningSpec.model_validate(
        {"objectives": ["roc_auc", "model_mb"], "constraints": ["model_mb <= 1"]})
    ledger = tuning_ledger.open_ledger(None, tuning, SPACE)
    number, _ = ledger.ask()
    ledger.epoch(number, 1, 0.5)
    assert "model_mb could not be measured" in ledger.end(number, "complete").cause
    play(ledger, 1, measures=lambda params: {"model_mb": 2.0})
    assert ledger.winner() is None
    play(ledger, 1, measures=lambda params: {"model_mb": 1.0})
    assert ledger.winner() == ledger.front()[0]


def test_the_search_counts_trials_since_the_best_and_what_runs_counts_for_a_target() -> None:
    ledger = open_ledger(None)
    assert (ledger.best_so_far(), ledger.since_best()) == (None, 0)
    for value in (0.5, 0.7, 0.6, 0.65):
        number, _ = ledger.ask()
        ledger.epoch(number, 1, value)
        ledger.end(number, "complete")
    assert (ledger.best_so_far(), ledger.since_best()) == (0.7, 2)
    number, _ = ledger.ask()
    ledger.epoch(number, 1, 0.8)
    assert ledger.best_so_far() == 0.8
