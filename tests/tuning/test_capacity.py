"""The plan of a search: what fits is counted, what would deadlock is refused with the sum."""

from typing import Any

import pytest
from pydantic import ValidationError
from ray.tune.search import Searcher

from raymill.errors import UsageError
from raymill.training.spec import TrainingSpec
from raymill.tuning import bridge
from raymill.tuning.capacity import Plan, plan, trial_gpu
from raymill.tuning.spec import TrialResources, TuningSpec


def planned(nodes: list[dict[str, float]], concurrency: int | None = None, **held: float) -> Plan:
    spec = TuningSpec(trials=100, concurrency=concurrency,
                      resources=TrialResources.model_validate(held))
    return plan(spec, TrainingSpec(), nodes)


@pytest.mark.parametrize(("nodes", "held", "trials"), [
    ([{"CPU": 5}, {"CPU": 3}, {}], {"cpu": 2}, 3),
    ([{"CPU": 16, "GPU": 1}], {"cpu": 2, "gpu": 0.5}, 2),
    ([{"CPU": 16, "GPU": 4}], {"gpu": 0.6}, 4),  # 2.4 GPUs' worth, but a share lies on one GPU
    ([{"CPU": 8, "GPU": 4}], {"gpu": 0.5}, 8),
    ([{"CPU": 8}], {"workers": 2}, 4),
    ([{"CPU": 3}, {"CPU": 3}], {"workers": 2}, 3),  # a trial's workers may lie on two machines
    ([{"CPU": 8}], {"workers": 2, "data_cpu": 1}, 3),
    ([{"CPU": 8, "GPU": 3}], {"workers": 2, "gpu": 1}, 1),
])
def test_trials_run_side_by_side_as_the_machines_allow(
    nodes: list[dict[str, float]], held: dict[str, float], trials: int
) -> None:
    assert planned(nodes, **held).trials == trials
    assert planned(nodes, concurrency=1, **held).trials == 1


def test_the_driver_of_several_workers_takes_no_cpu_from_them() -> None:
    assert planned([{"CPU": 4}], workers=2).driver["CPU"] == 0
    assert planned([{"CPU": 4}], workers=1).driver == {"CPU": 1, "GPU": 0}


@pytest.mark.parametrize(("nodes", "held", "said"), [
    ([{"CPU": 4}, {"CPU": 4}], {"cpu": 8},
     "a trial takes 8 CPUs; the cluster's 2 machines have 8 CPUs, the largest 4 CPUs"),
    ([{"CPU": 2}], {"workers": 2, "data_cpu": 1},
     "2 workers x 1 CPU = 2 CPUs, 1 CPU kept for data; the cluster has 2 CPUs"),
    ([{"CPU": 4, "GPU": 1}], {"workers": 2, "gpu": 1},
     "2 workers x 1 CPU and 1 GPU = 2 CPUs and 2 GPUs; the cluster has 4 CPUs and 1 GPU"),
    ([{"CPU": 4, "GPU": 2}], {"workers": 2, "gpu": 0.5}, "can't share a GPU"),
])
def test_a_plan_that_would_wait_for_ever_is_refused_with_its_arithmetic(
    nodes: list[dict[str, float]], held: dict[str, float], said: str
) -> None:
    with pytest.raises(UsageError) as refused:
        planned(nodes, **held)
    assert said in str(refused.value)


def test_a_trial_takes_a_gpu_where_there_is_one() -> None:
    training = TrainingSpec()
    assert trial_gpu(TuningSpec(), training, {"GPU": 2.0}) == 1
    assert trial_gpu(TuningSpec(), training, {}) == 0
    assert trial_gpu(TuningSpec(), TrainingSpec(gpu="never"), {"GPU": 2.0}) == 0
    with pytest.raises(UsageError, match=r"gpu is never.*resources\.gpu is 1"):
        trial_gpu(TuningSpec(resources=TrialResources(gpu=1)), TrainingSpec(gpu="never"), {})
    with pytest.raises(UsageError, match="has no GPU"):
        trial_gpu(TuningSpec(), TrainingSpec(gpu="require"), {})


@pytest.mark.parametrize("gpu", [1.5, 2])
def test_a_worker_of_a_trial_computes_on_one_gpu(gpu: float) -> None:
    with pytest.raises(ValidationError, match="raise workers"):
        TrialResources(gpu=gpu)


class Numbers(Searcher):  # type: ignore[misc]
    def suggest(self, trial_id: str) -> dict[str, Any]:
        return {"number": int(trial_id)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        pass


def test_a_running_search_takes_the_room_of_added_machines_and_gives_up_that_of_lost_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = [{"CPU": 1}]
    monkeypatch.setattr(bridge, "LOOK_S", 0.0)
    room = bridge.Room(Numbers(), 1, lambda: planned(nodes).trials)
    assert room.suggest("0") == {"number": 0}
    assert room.suggest("1") is None
    nodes.append({"CPU": 1})
    assert room.suggest("1") == {"number": 1}
    assert room.suggest("2") is None
    nodes[:] = [{"CPU": 1}]
    room.on_trial_complete("0")
    assert room.suggest("2") is None
    nodes.clear()  # not even one: what runs is left alone
    room.on_trial_complete("1")
    assert room.suggest("2") == {"number": 2}
