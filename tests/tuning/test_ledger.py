"""The ledger forgets nothing that finished and repeats nothing that did."""

from pathlib import Path
from typing import Any

import optuna
import pytest

from raymill.errors import UsageError
from raymill.tuning.ledger import Ledger, journal
from raymill.tuning.spec import Dimension, TuningSpec

SPACE = {"x": Dimension(low=0.0, high=1.0), "k": Dimension(low=1, high=9)}
FIRST = {"x": 0.5, "k": 3}


def open_ledger(path: Path, trials: int = 20, **kwargs: Any) -> Ledger:
    return Ledger(path, "search", True, TuningSpec(trials=trials, **kwargs), SPACE, [FIRST])


def play(ledger: Ledger, trials: int) -> list[dict[str, Any]]:
    drawn = []
    for _ in range(trials):
        number, params = ledger.ask()
        ledger.epoch(number, 1, -abs(params["x"] - 0.3))
        ledger.end(number, "complete")
        drawn.append(params)
    return drawn


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
    with journal(tmp_path) as path:
        play(open_ledger(path), 2)
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"wor')
    (tmp_path / "study.journal.lock").symlink_to(path)
    with journal(tmp_path) as path:
        ledger = open_ledger(path)
        assert ledger.resumed == 2
        play(ledger, 1)
        assert open_ledger(path).resumed == 3


def test_a_second_search_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with journal(tmp_path), pytest.raises(UsageError, match="another process"):
        with journal(tmp_path):
            pass
