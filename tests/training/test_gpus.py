"""The plan and the run agree on who gets a GPU."""

from __future__ import annotations

from typing import Any

import pytest

from raymill.plan import make
from raymill.spec import spec_from
from raymill.training import distributed
from raymill.training.gpus import idle, workers_on
from raymill.training.spec import TrainingSpec

from .samples import job


def training(workers: Any, gpu: str = "auto") -> TrainingSpec:
    return TrainingSpec.model_validate({"workers": workers, "gpu": gpu})


@pytest.mark.parametrize(("workers", "gpus", "most", "said"), [
    (1, 0, None, ""),
    (1, 1, 1, ""),
    (1, 4, 1, "3 of 4 GPUs stay idle"),
    (4, 2, None, "computes on CPUs: a GPU a worker would take 4, and the cluster has 2"),
    ({"min": 1, "max": 4}, 2, 2, "at most 2 of 4 workers"),
    ({"min": 3, "max": 4}, 2, None, "would take 3"),
    ({"min": 1, "max": 4}, 8, 4, "4 of 8 GPUs stay idle"),
])
def test_a_gpu_is_a_workers_own_and_what_stays_unused_is_told(
    workers: Any, gpus: int, most: int | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = training(workers)
    on = workers_on(gpus, spec)
    assert (on if on is None or isinstance(on, int) else on.max) == most
    assert said in idle(gpus, spec) and bool(said) == bool(idle(gpus, spec))
    told: list[str] = []
    node = {"CPU": 8.0, "GPU": float(gpus)}
    monkeypatch.setattr(distributed.ray, "cluster_resources", lambda: node)
    monkeypatch.setattr(distributed.ray, "nodes", lambda: [{"Alive": True, "Resources": node}])
    monkeypatch.setattr(distributed, "usable_gpus", lambda: gpus > 0)
    ran, share = distributed._share(job(workers=workers, gpu="auto"),
                                    lambda event: told.append(event.data["text"]))
    assert (share.gpus > 0) == (most is not None)
    assert ran.training.most_workers == (most or spec.most_workers)
    assert told == ([idle(gpus, spec)] if said else [])
    planned = make(spec_from({"name": "p", "data": {"source": "x.csv", "target": "y"},
                              "training": {"workers": workers}}), [node], only="train")
    [stage] = [stage for stage in planned.stages if stage.name == "train"]
    assert (stage.gpus, stage.note) == (share.gpus, idle(gpus, spec))


def test_a_gpu_that_must_not_be_used_is_not_missed() -> None:
    assert workers_on(4, training(2, "never")) is None
    assert idle(4, training(2, "never")) == ""
