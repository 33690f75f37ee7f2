"""Trials on counted GPUs, trials of several workers, and what a stopped one leaves behind."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group
from tuning_problem import FakePrepared, project

from raymill.cluster.environment import ensure_token
from raymill.cluster.local import ray_session
from raymill.cluster.spec import ClusterSpec
from raymill.errors import UsageError
from raymill.events import Event
from raymill.training.spec import ModelSpec, TrainingSpec
from raymill.tuning.orphans import free_orphans, settle
from raymill.tuning.search import search
from raymill.tuning.spec import Dimension, TuningSpec

pytestmark = [pytest.mark.usefixtures("two_gpus"), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def two_gpus() -> Iterator[None]:
    """4 CPUs and 2 GPUs that Ray only counts."""
    ensure_token()
    with ray_session(ClusterSpec(cpus=4, gpus=2)):
        yield


def spec(**fields: Any) -> TuningSpec:
    return TuningSpec.model_validate({"sampler": "random", "scheduler": "none", **fields})


def test_trials_share_gpus_as_ray_assigns_them(tmp_path: Path) -> None:
    events: list[Event] = []
    result = search(ModelSpec(family="linear"), TrainingSpec(epochs=1), None,
                    spec(trials=5, resources={"gpu": 0.5}), FakePrepared(),  # type: ignore[arg-type]
                    tmp_path, events.append)
    places = [trial.place for trial in result.trials]
    assert all(place["device"] == "cpu" and len(place["gpus"]) == 1 for place in places)
    assert {place["gpus"][0] for place in places} <= {0, 1}  # quick ones may not need both
    for at in [place["began"] for place in places]:
        running = [p["gpus"][0] for p in places if p["began"] <= at < p["ended"]]
        assert max(running.count(gpu) for gpu in running) <= 2
    said = [event.data["text"] for event in events if event.kind == "note"]
    assert any("4 at once" in text for text in said)
    assert any("Ray's are only counted" in text for text in said)
    told = [event.data for event in events if event.kind == "place"]
    assert sorted(place["trial"] for place in told) == [0, 1, 2, 3, 4]


def test_trials_of_two_workers_fill_the_cluster_and_a_failed_one_frees_it(tmp_path: Path) -> None:
    """No CPU is left for Ray Data's own tasks, and none is needed."""
    own = project(tmp_path / "own")
    model = ModelSpec.model_validate({"family": "own:build", "mode": "good"})  # the first trial's
    result = search(
        model, TrainingSpec(epochs=2), None,
        spec(trials=2, max_failures=0, resources={"workers": 2, "gpu": 0},
             space={"model.mode": Dimension(choice=["good", "bad"])}),
        FakePrepared(), tmp_path / "out", project=own)  # type: ignore[arg-type]
    by_mode = {trial.params["model.mode"]: trial for trial in result.trials}
    assert by_mode["good"].state == "complete" and sorted(by_mode["good"].values) == [1, 2]
    assert by_mode["bad"].state == "failed" and "this mode is bad" in by_mode["bad"].cause
    assert ray.available_resources()["CPU"] == 4


@ray.remote(num_cpus=0)
class Maker:
    def make(self) -> Any:
        group = placement_group([{"CPU": 3}])
        ray.get(group.ready())
        return group


def test_a_killed_trials_placement_group_is_freed_and_no_other() -> None:
    own = placement_group([{"CPU": 1}])
    ray.get(own.ready())
    lost, waiting = Maker.remote(), Maker.remote()
    ray.get(lost.make.remote())
    made = waiting.make.remote()  # pending: there are 3 CPUs, and the first one holds them
    assert free_orphans() == 0
    ray.kill(lost)
    deadline = time.monotonic() + 10
    while free_orphans() == 0:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ray.get(made, timeout=10)
    ray.kill(waiting)
    settle()
    assert free_orphans() == 0
    remove_placement_group(own)


def test_what_can_never_run_is_refused_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"3 workers x 2 CPUs = 6 CPUs; the cluster has 4 CPUs"):
        search(ModelSpec(family="linear"), TrainingSpec(), None,
               spec(trials=1, resources={"workers": 3, "cpu": 2, "gpu": 0}),
               FakePrepared(), tmp_path)  # type: ignore[arg-type]
