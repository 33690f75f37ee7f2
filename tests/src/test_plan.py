"""Impossible and deadlocking plans are refused with their arithmetic; possible ones are not."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from raymill import pipeline
from raymill.cli.main import main
from raymill.errors import UsageError
from raymill.plan import Plan, declared_nodes, make
from raymill.spec import spec_from

GB = 2**30


def node(cpus: float = 4, gpus: float = 0, memory_gb: float = 16) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus, "memory": memory_gb * GB,
            "object_store_memory": 0.3 * memory_gb * GB}


def planned(nodes: list[dict[str, float]], data_mb: float | None = 10, **parts: Any) -> Plan:
    spec = spec_from({"name": "p", "data": {"source": "x.csv", "target": "y"}, **parts})
    return make(spec, nodes, data_mb)


BOX, TWO, GPU = [node()], [node(2), node(2)], [node(8, 2)]
IMPOSSIBLE: list[tuple[str, list[dict[str, float]], dict[str, Any], str]] = [
    ("a trial of more CPUs than there are", BOX, {"tuning": {"resources": {"cpu": 5}}}, "5 CPUs"),
    ("a trial larger than any machine", TWO, {"tuning": {"resources": {"cpu": 3}}}, "largest 2"),
    ("a trial of many workers", BOX, {"tuning": {"resources": {"workers": 5}}}, "= 5 CPUs"),
    ("workers of a trial that no machine holds", TWO,
     {"tuning": {"resources": {"workers": 2, "cpu": 3}}}, "= 6 CPUs"),
    ("a trial with a GPU that is not there", BOX, {"tuning": {"resources": {"gpu": 1}}}, "1 GPU"),
    ("a trial of more GPUs than there are", GPU, {"tuning": {"resources": {"workers": 4, "gpu": 1}}},
     "4 GPUs"),
    ("data CPUs that leave none", BOX, {"tuning": {"resources": {"data_cpu": 4}}}, "kept for data"),
    ("GPUs required of none", BOX, {"training": {"gpu": "require"}, "tuning": {"trials": 0}},
     "1 workers x 1 GPU"),
    ("more GPUs required than there are", GPU,
     {"training": {"gpu": "require", "workers": 3}, "tuning": {"trials": 0}}, "= 3 GPUs"),
    ("a search that requires a GPU of none", BOX, {"training": {"gpu": "require"}}, "no GPU"),
    ("workers of more CPUs than there are", BOX,
     {"training": {"workers": 3, "cpus_per_worker": 2}}, "= 6 CPUs"),
    ("workers that no machine holds", TWO,
     {"training": {"workers": 1, "cpus_per_worker": 3}}, "at most 2 each"),
    ("workers that fit in sum only", [node(3), node(3)],
     {"training": {"workers": 3, "cpus_per_worker": 2}}, "hold 2 such workers"),
    ("one worker on an empty cluster", [node(0)], {"training": {"cpus_per_worker": 1}}, "0 CPU"),
    ("fewer rows a batch than workers", BOX, {"training": {"workers": 4, "batch_size": 2}},
     "2 rows for 4 workers"),
    ("more replicas than CPUs", BOX,
     {"serving": {"replicas": {"min": 9, "max": 9}}}, "9 replicas x 0.5 CPUs = 4.5"),
    ("a replica larger than any machine", TWO, {"serving": {"cpus_per_replica": 3}}, "room for 0"),
    ("an object store that leaves no memory", [
        {**node(), "object_store_memory": 15.5 * GB}], {}, "of memory"),
    ("trials that fill the memory", [node(64, memory_gb=8)],
     {"tuning": {"trials": 64}}, "64 processes x 350 MB"),
    ("workers that fill the memory", [node(64, memory_gb=4)],
     {"training": {"workers": 32}, "tuning": {"trials": 0}}, "33 processes x 350 MB"),
]
FEASIBLE: list[tuple[list[dict[str, float]], dict[str, Any]]] = [
    (BOX, {}), (TWO, {}), (GPU, {}), ([node(1)], {}),
    (BOX, {"tuning": {"resources": {"cpu": 4}}}),
    (TWO, {"tuning": {"resources": {"cpu": 2}}}),
    (BOX, {"tuning": {"resources": {"workers": 4}}}),
    (TWO, {"tuning": {"resources": {"workers": 2, "cpu": 2}}}),
    (GPU, {"tuning": {"resources": {"gpu": 0.5}}}),
    (GPU, {"tuning": {"resources": {"workers": 2, "gpu": 1}}}),
    (BOX, {"tuning": {"resources": {"data_cpu": 3}}}),
    (BOX, {"tuning": {"trials": 1000, "concurrency": 1}}),
    (GPU, {"training": {"gpu": "require", "workers": 2}}),
    (BOX, {"training": {"workers": 8}, "tuning": {"trials": 0}}),
    (BOX, {"training": {"workers": 2, "cpus_per_worker": 2}}),
    (TWO, {"training": {"workers": 4, "cpus_per_worker": 1}}),
    ([node(3), node(3)], {"training": {"workers": 2, "cpus_per_worker": 2}}),
    (BOX, {"training": {"workers": 4, "batch_size": 4}}),
    (BOX, {"serving": {"replicas": {"min": 8, "max": 8}}}),
    ([node(64, memory_gb=8)], {"tuning": {"trials": 64, "concurrency": 8}}),
]


@pytest.mark.parametrize(
    "nodes, parts, arithmetic", [case[1:] for case in IMPOSSIBLE], ids=[c[0] for c in IMPOSSIBLE])
def test_the_impossible_is_refused_with_its_arithmetic(
    nodes: list[dict[str, float]], parts: dict[str, Any], arithmetic: str
) -> None:
    found = planned(nodes, **parts).problems
    assert found and any(arithmetic in str(problem) for problem in found), found
    assert all(problem.cure for problem in found)


@pytest.mark.parametrize("nodes, parts", FEASIBLE)
def test_the_feasible_is_accepted(nodes: list[dict[str, float]], parts: dict[str, Any]) -> None:
    plan = planned(nodes, **parts)
    assert plan.problems == []
    plan.require()


def test_a_plan_says_what_waits_and_what_spills() -> None:
    plan = planned(BOX, data_mb=6000, tuning={"trials": 10})
    search = next(stage for stage in plan.stages if stage.name == "search")
    assert (search.at_once, search.waits, search.cpus) == (4, 6, 1)
    assert "written to disk" in plan.warnings[0]


def test_declared_machines_are_counted_at_their_most() -> None:
    spec = spec_from({"name": "p", "data": {"source": "x", "target": "y"}, "cluster": {
        "nodes": {"workers": [{"name": "a", "max": 2, "cpus": 8},
                              {"name": "b", "min": 0, "gpus": 1, "cpus": 4}]}}})
    assert [(n["CPU"], n["GPU"]) for n in declared_nodes(spec.cluster)] == [(8, 0), (8, 0), (4, 1)]


def test_the_verb_exits_2_on_the_impossible(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYMILL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "x.csv").write_text("a,y\n1,0\n2,1\n")
    spec = tmp_path / "raymill.yaml"
    spec.write_text("name: p\ndata: {source: x.csv, target: y}\n")
    assert main(["plan", str(spec)]) == 0
    said = capsys.readouterr().out
    assert "search" in said and "later: trials that begin as others end" in said
    assert main(["plan", str(spec), "--json", "--set", "tuning.resources.cpu=999"]) == 2
    said = json.loads(capsys.readouterr().out)
    assert not said["ok"] and "999 CPUs" in said["problems"][0]["got"]


def test_a_stage_alone_is_not_refused_for_another() -> None:
    spec = spec_from({"name": "p", "data": {"source": "x.csv", "target": "y"},
                      "training": {"workers": 3, "cpus_per_worker": 2},
                      "tuning": {"resources": {"cpu": 5}}})
    for only, said in (("train", "3 workers x 2 CPUs"), ("search", "5 CPUs")):
        [problem] = make(spec, BOX, only=only).problems
        assert said in problem.got


@pytest.mark.parametrize(("verb", "said"), [("train", "3 workers x 2 CPUs"), ("tune", "5 CPUs")])
def test_a_stage_alone_is_planned_before_its_data_is_read(
    verb: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_from({"name": "p", "data": {"source": "nowhere.csv", "target": "y"},
                      "training": {"workers": 3, "cpus_per_worker": 2},
                      "tuning": {"resources": {"cpu": 5}}})
    monkeypatch.setattr(pipeline, "workspace", lambda *_: nullcontext())
    monkeypatch.setattr(pipeline, "cluster_nodes", lambda: BOX)
    with pytest.raises(UsageError, match=said):
        getattr(pipeline, verb)(spec)
