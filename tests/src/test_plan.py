"""Impossible and deadlocking plans are refused with their arithmetic; possible ones are not."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from benchmarks.plan import BOXES, PROJECTS
from benchmarks.plan_cases import BOX, GPU, IMPOSSIBLE, TWO, node
from benchmarks.plan_cases import FEASIBLE as COMPLETED
from raymill import pipeline
from raymill.cli.main import main
from raymill.errors import UsageError
from raymill.plan import Plan, declared_nodes, make
from raymill.spec import load_spec, spec_from


def planned(nodes: list[dict[str, float]], data_mb: float | None = 10, **parts: Any) -> Plan:
    spec = spec_from({"name": "p", "data": {"source": "x.csv", "target": "y"}, **parts})
    return make(spec, nodes, data_mb)


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


@pytest.mark.parametrize("training", [
    {"workers": {"min": 5, "max": 8}}, {"workers": {"min": 5, "max": 5}, "cpus_per_worker": 0.5}])
def test_a_range_whose_fewest_workers_have_no_room_is_refused(training: dict[str, Any]) -> None:
    """Ray counts whole CPUs for them, and would wait for ever."""
    [problem] = planned(BOX, training=training).problems
    assert "5 workers x 1 CPUs (a range of workers takes whole CPUs)" in problem.got
    assert planned(BOX, training={"workers": {"min": 4, "max": 8}}).problems == []


def test_what_the_figure_completes_is_accepted_on_its_machines(tmp_path: Path) -> None:
    """The figure itself runs them to their end."""
    shapes = {name: [node(box["cpus"], box["gpus"])] for name, box in BOXES.items()}
    shapes["raylets"] = [node(0), node(1), node(1), node(1)]
    assert len({case.name for case in COMPLETED}) == len(IMPOSSIBLE) == 20
    for case in COMPLETED:
        (tmp_path / "spec.yaml").write_text(PROJECTS[case.rows])
        spec = load_spec(tmp_path / "spec.yaml", [f"{k}={v}" for k, v in case.settings.items()])
        assert make(spec, shapes[case.machines]).problems == [], case.name


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
