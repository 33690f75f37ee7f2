"""The live leaderboard follows from the events of a search."""

import pytest
from rich.console import Console

from raymill.cli.board import Board
from raymill.cli.progress import State, plain_line
from raymill.events import Event


def searched() -> State:
    """Six wanted, one done before; one complete, one pruned, one failed, one running."""
    state = State()
    told = [
        ("stage", {"name": "search", "status": "started", "metric": "roc_auc", "trials": 6,
                   "rungs": [1, 2, 4]}),
        ("progress", {"stage": "search", "done": 1, "total": 6, "unit": "trials"}),
        *[("trial", {"number": n, "state": "running", "value": None, "params": {"training.lr": 0.1}})
          for n in (1, 2, 3, 4)],
        *[("epoch", {"trial": n, "epoch": e, "epochs": 4, "metrics": {"val_roc_auc": v + e / 100}})
          for n, v, last in ((1, 0.7, 4), (2, 0.5, 1), (4, 0.8, 2)) for e in range(1, last + 1)],
        ("trial", {"number": 1, "state": "complete", "value": 0.74}),
        ("trial", {"number": 2, "state": "pruned", "value": 0.51}),
        ("trial", {"number": 3, "state": "failed", "value": None, "cause": "bad"}),
    ]
    for kind, data in told:
        state.add(Event(kind, data, time=100.0))  # type: ignore[arg-type]
    return state


def shown(board: Board, now: float) -> str:
    console = Console(width=110, record=True, file=None, quiet=False, color_system=None)
    with console.capture() as caught:
        console.print(board.view(now))
    return caught.get()


def test_it_says_who_leads_how_far_and_how_long() -> None:
    board = searched().board
    assert board.best() == (pytest.approx(0.82), 4)  # a running trial may lead
    # 3.5 trials in 35 s; 1.5 are left: of six, one was done before and 3.5 are.
    assert board.left_s(135.0) == pytest.approx(15.0)
    summary = board.summary(135.0)
    assert summary.startswith("4 of 6 trials: 1 complete, 1 running, 1 pruned, 1 failed")
    assert "best 0.8200 (trial 4)" in summary and "about 15s left" in summary


def test_the_table_has_rungs_epochs_and_curves_and_the_best_on_top() -> None:
    lines = shown(searched().board, 135.0).splitlines()
    leader, second = lines[2].split(), lines[3].split()
    assert leader[:5] == ["▸4", "running", "2/3", "2/4", "0.8200"] and "▁" in leader[5]
    assert second[:5] == ["1", "complete", "3/3", "4/4", "0.7400"]


def test_a_plain_line_says_the_same() -> None:
    state = searched()
    event = Event("trial", {"number": 2, "state": "pruned", "value": 0.51,
                            "params": {"training.lr": 0.1}}, time=135.0)
    line = plain_line(event, state)
    assert line is not None
    assert "trial 2 pruned roc_auc 0.5100" in line and "4 of 6 trials" in line and "left" in line


def test_what_an_earlier_call_found_leads_until_it_is_beaten() -> None:
    state = searched()
    before = {"number": 0, "state": "complete", "value": 0.9, "epoch": 2, "curve": [0.8, 0.9],
              "params": {"training.lr": 0.2}}
    state.add(Event("progress", {"stage": "search", "done": 4, "total": 6, "unit": "trials",
                                 "leaders": [before]}))
    assert state.board.best() == (0.9, 0)
    assert state.board.summary(135.0).startswith("4 of 6 trials: 1 complete, 1 running")
    leader = shown(state.board, 135.0).splitlines()[2].split()
    assert leader[:4] == ["▸0", "complete", "2/3", "2"] and leader[4:6] == ["0.9000", "▁█"]


def test_nothing_is_guessed_before_a_trial_has_ended() -> None:
    board = Board()
    board.start({"trials": 4}, 0.0)
    board.trial({"number": 0, "state": "running", "value": None, "params": {}})
    assert board.left_s(50.0) is None
    assert board.summary(50.0) == "0 of 4 trials: 1 running"
