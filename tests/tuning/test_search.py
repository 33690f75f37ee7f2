"""Searches on a Ray of the test's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from ray.tune.schedulers import FIFOScheduler
from tuning_problem import FakePrepared, project

from raymill.errors import TrainingError
from raymill.events import Event
from raymill.training.checkpoint import newest_good, read_progress
from raymill.training.spec import ModelSpec, TrainingSpec
from raymill.tuning.importance import importances
from raymill.tuning.own import Own
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
    assert not (tmp_path / "out" / "trials").exists()
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "out" / "study.journal"))
    study = optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))
    assert study.best_value == result.best_value

    events.clear()
    again = run(TuningSpec(trials=6), **spec)
    leaders = next(event.data["leaders"] for event in events if event.kind == "progress")
    best = result.trials[result.best_trial]
    assert len(leaders) == 6 and (leaders[0]["number"], leaders[0]["value"]) == (
        best.number, best.value)
    assert (leaders[0]["params"], leaders[0]["curve"]) == (best.params, [*best.values.values()])
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


def test_a_trial_that_hangs_fails_with_the_place_and_the_search_goes_on(
    run: Callable[..., SearchResult]
) -> None:
    result = run(
        TuningSpec(trials=3, max_failures=0, sampler="grid", scheduler="none",
                   space={"model.mode": Dimension(choice=["good", "hangs", "flaky"])}),
        training=TrainingSpec(epochs=2, watchdog="2s"))
    by_mode = {trial.params["model.mode"]: trial for trial in result.trials}
    assert by_mode["good"].state == "complete"
    assert by_mode["hangs"].state == "failed"
    assert "made no step for" in by_mode["hangs"].cause
    assert "own.py" in by_mode["hangs"].cause and "in forward" in by_mode["hangs"].cause
    assert "only this once" in by_mode["flaky"].cause


def test_a_search_whose_trials_all_fail_raises_their_cause(
    run: Callable[..., SearchResult]
) -> None:
    space = {"model.mode": Dimension(choice=["bad"])}
    with pytest.raises(TrainingError, match=r"all 2 trials failed.*this mode is bad"):
        run(TuningSpec(trials=2, max_failures=0, space=space))


def test_a_target_reached_ends_a_search_within_a_report(
    run: Callable[..., SearchResult], tmp_path: Path
) -> None:
    tuning = TuningSpec(trials=50, concurrency=1, budget=BudgetSpec(target=0.6), sampler="random",
                        scheduler="none", space={"model.noise": NOISES})
    training = TrainingSpec(epochs=8, patience=None, loop="own:slow")
    result = run(tuning, training=training)
    assert result.ended_by.startswith("tuning.budget.target of 0.6")
    *before, last = result.trials
    assert (last.value or 0) >= 0.6
    assert all((trial.value or 0) < 0.6 for trial in before)
    assert "cut short by tuning.budget.target" in last.cause
    pids = (tmp_path / "own" / "pids").read_text().split()
    assert len(pids) == len(result.trials)
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


def test_a_choice_among_two_objectives_keeps_to_the_constraint(
    run: Callable[..., SearchResult]
) -> None:
    seen: list[int] = []
    sizes = {"linear": {}, "mlp": {"model.width": {"choice": [8, 512, 513]},
                                   "model.numeric_embedding": {"choice": ["none"]}}}
    tuning = TuningSpec.model_validate({
        "trials": 5, "sampler": "grid", "objectives": ["roc_auc", "p99_latency_ms", "model_mb"],
        "constraints": ["model_mb <= 1"], "choose": "best:model_mb",
        "space": {"model.family": {"choice": sizes}}})
    result = run(tuning, model=ModelSpec(family="linear"),
                 own=Own(callbacks=[lambda study, trial: seen.append(trial.number)]))
    assert sorted(seen) == [0, 1, 2, 3]
    assert result.best_params == {"model.family": "linear"}
    assert result.best_trial in result.front
    by_size = sorted(result.trials, key=lambda trial: trial.measures["model_mb"])
    assert [trial.params.get("model.width") for trial in by_size] == [None, 8, 512, 513]
    assert not {trial.number for trial in by_size[2:]} & set(result.front)
    assert all(trial.measures["p99_latency_ms"] >= trial.measures["p50_latency_ms"] > 0
               for trial in result.trials)


def test_a_callback_stops_a_search_and_an_own_sampler_draws_it(
    run: Callable[..., SearchResult]
) -> None:
    class Fixed(optuna.samplers.RandomSampler):
        def sample_independent(self, *_: Any) -> Any:
            return 2.5

    own = Own(callbacks=[lambda study, trial: study.stop()], sampler=Fixed(),
              scheduler=FIFOScheduler())
    result = run(TuningSpec(trials=5, concurrency=1, points=[{"model.noise": 1.5}],
                            space={"model.noise": NOISES}), own=own)
    assert result.ended_by == "a callback"
    assert [trial.params["model.noise"] for trial in result.trials] == [1.5]
    again = run(TuningSpec(trials=5, concurrency=1, points=[{"model.noise": 1.5}],
                           space={"model.noise": NOISES}), own=Own(sampler=Fixed(),
                                                                   scheduler=FIFOScheduler()))
    values = [trial.params["model.noise"] for trial in again.trials]
    assert values == [1.5, 2.5, 2.5, 2.5, 2.5]
    assert [trial.origin for trial in again.trials[2:]] == ["known from trial 1"] * 3
    assert again.ended_by == "tuning.trials"


def test_what_a_callback_raises_ends_the_search_which_then_goes_on(
    run: Callable[..., SearchResult]
) -> None:
    seen: list[int] = []

    def breaks(study: object, trial: optuna.trial.FrozenTrial) -> None:
        seen.append(trial.number)
        raise ZeroDivisionError("mine")

    tuning = TuningSpec(trials=3, concurrency=1, space={"model.noise": NOISES})
    with pytest.raises(ZeroDivisionError, match="mine"):
        run(tuning, own=Own(callbacks=[breaks]))
    assert seen == [0]
    result = run(tuning)
    assert result.resumed == 1 and [t.state for t in result.trials] == ["complete"] * 3


def test_a_population_goes_on_with_weights_and_varies_the_rest(
    run: Callable[..., SearchResult], tmp_path: Path
) -> None:
    tuning = TuningSpec.model_validate({
        "trials": 4, "scheduler": "pbt", "population": 2,
        "space": {"training.lr": {"low": 1e-4, "high": 1e-1, "log": True}}})
    result = run(tuning, model=ModelSpec(family="linear"), training=TrainingSpec(epochs=4))
    assert [trial.state for trial in result.trials] == ["complete"] * 4
    assert [sorted(trial.values) for trial in result.trials] == [[1, 2], [1, 2], [3, 4], [3, 4]]
    best, worst = sorted(result.trials[:2], key=lambda trial: -(trial.value or 0))
    later = {trial.origin: trial for trial in result.trials[2:]}
    assert set(later) == {f"goes on from trial {best.number}"}
    assert best.params in [trial.params for trial in result.trials[2:]]
    assert worst.params not in [trial.params for trial in result.trials[2:]]
    for trial in result.trials[2:]:
        folder = tmp_path / "out" / "trials" / str(trial.number) / "checkpoints"
        history = read_progress(newest_good(folder)).history  # type: ignore[arg-type]
        told = {int(row["epoch"]): row["val_roc_auc"] for row in history}
        assert told == {**best.values, **trial.values}
