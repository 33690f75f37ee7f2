"""Searches on a Ray of the test's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from tuning_problem import FakePrepared, project

from raymill.errors import TrainingError
from raymill.events import Event
from raymill.training.spec import ModelSpec, TrainingSpec
from raymill.tuning.importance import importances
from raymill.tuning.records import SearchResult
from raymill.tuning.search import search
from raymill.tuning.spec import BudgetSpec, Dimension, TuningSpec

pytestmark = [pytest.mark.usefixtures("ray_local"), pytest.mark.filterwarnings("ignore")]
NOISES = Dimension(low=0.0, high=4.0)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., SearchResult]:
    own = project(tmp_path / "own")

    def run(tuning: TuningSpec, **changes: Any) -> SearchResult:
        arguments: dict[str, Any] = {
            "model": ModelSpec(family="own:build"), "training": TrainingSpec(epochs=2),
            "metric": None, "prepared": FakePrepared(), "out": tmp_path / "out", "project": own,
        }
        return search(tuning=tuning, **arguments | changes)

    return run


def test_a_search_tells_all_it_does_and_leaves_only_its_journal(
    run: Callable[..., SearchResult], tmp_path: Path
) -> None:
    events: list[Event] = []
    prepared = FakePrepared()
    spec = {"model": ModelSpec(family="linear"), "prepared": prepared, "notify": events.append}
    result = run(TuningSpec(trials=6), **spec)
    assert [trial.state for trial in result.trials] == ["complete"] * 6
    assert result.trials[0].params["training.lr"] == TrainingSpec().lr
    assert result.best_value == max(trial.value or 0.0 for trial in result.trials)
    assert result.training.lr == result.best_params["training.lr"]
    told = [(e.data["number"], e.data["state"]) for e in events if e.kind == "trial"]
    assert sorted(told) == sorted((n, s) for n in range(6) for s in ("running", "complete"))
    assert sum(event.kind == "epoch" for event in events) == 12
    assert prepared.asked == ["train", "validation"]
    assert not (tmp_path / "out" / "scratch").exists()
    backend = optuna.storages.journal.JournalFileBackend(str(result.study_path))
    study = optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))
    assert study.best_value == result.best_value

    again = run(TuningSpec(trials=6), **spec)
    assert (again.resumed, again.trials) == (6, result.trials)
    assert prepared.asked == ["train", "validation"]

    shares = importances(again)
    assert sum(shares.shares.values()) == pytest.approx(1)
    assert "6 trials only" in shares.note


def test_asha_ends_the_worse_trials_early(run: Callable[..., SearchResult]) -> None:
    tuning = TuningSpec(trials=9, concurrency=1, sampler="random", grace_epochs=1,
                        space={"model.noise": NOISES})
    result = run(tuning, training=TrainingSpec(epochs=9, patience=None))
    pruned = [trial for trial in result.trials if trial.state == "pruned"]
    assert pruned
    assert all(len(trial.values) < 9 for trial in pruned)
    assert result.trials[result.best_trial].state == "complete"
    assert result.best_params["model.noise"] == min(t.params["model.noise"] for t in result.trials)


def test_a_failed_trial_names_its_cause_and_the_search_goes_on(
    run: Callable[..., SearchResult]
) -> None:
    events: list[Event] = []
    modes = ["good", "bad", "flaky", "dies", "diverges"]
    result = run(
        TuningSpec(trials=8, sampler="random", space={"model.mode": Dimension(choice=modes)}),
        notify=events.append,
    )
    by_mode = {trial.params["model.mode"]: trial for trial in result.trials}
    assert by_mode.keys() == set(modes)
    assert {mode for mode, trial in by_mode.items() if trial.state == "complete"} == {
        "good", "flaky", "dies"}
    assert by_mode["bad"].state == by_mode["diverges"].state == "failed"
    assert "this mode is bad" in by_mode["bad"].cause
    assert "finite" in by_mode["diverges"].cause
    warned = [event.data["text"] for event in events if event.kind == "warning"]
    assert any("its process died" in text for text in warned)


def test_a_search_whose_trials_all_fail_raises_their_cause(
    run: Callable[..., SearchResult]
) -> None:
    space = {"model.mode": Dimension(choice=["bad"])}
    with pytest.raises(TrainingError, match=r"all 2 trials failed.*this mode is bad"):
        run(TuningSpec(trials=2, max_failures=0, space=space))


def test_the_wall_budget_ends_a_search_within_a_report(
    run: Callable[..., SearchResult], tmp_path: Path
) -> None:
    tuning = TuningSpec(trials=50, concurrency=1, budget=BudgetSpec(wall="12s"), sampler="random",
                        scheduler="none", space={"model.noise": NOISES})
    training = TrainingSpec(epochs=8, patience=None, loop="own:slow")
    result = run(tuning, training=training)
    assert 1 <= len(result.trials) < 50
    assert "cut short" in result.trials[-1].cause
    pids = (tmp_path / "own" / "pids").read_text().split()
    assert len(pids) >= 2
    assert len(set(pids)) == 1  # the actor is used again
    assert run(tuning, training=training).trials == result.trials


def test_auto_tries_the_own_values_of_each_family_first(run: Callable[..., SearchResult]) -> None:
    events: list[Event] = []
    result = run(TuningSpec(trials=4), model=ModelSpec(), training=TrainingSpec(epochs=2, lr=1e-2),
                 notify=events.append)
    first, second = sorted(result.trials, key=lambda trial: trial.number)[:2]
    assert (first.params["model.family"], second.params["model.family"]) == ("gbdt", "mlp")
    assert first.params["model.leaves"] == 31 and second.params["model.width"] == 256
    assert "training.lr" not in second.params, "what the spec states is not searched"
    assert result.model.family == result.best_params["model.family"]
    assert any("gbdt, mlp" in event.data.get("text", "") for event in events)
