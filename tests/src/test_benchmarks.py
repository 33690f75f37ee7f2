"""The harness records what was measured, and RESULTS.md says no more than the records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import harness
from benchmarks.harness import Figure, Survival


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    monkeypatch.delenv("RAYMILL_BENCH_SCALE", raising=False)
    return tmp_path / "results"


def _figure(*, holds: bool = True) -> Figure:
    return Figure(name="speed", unit="rows/s", ours=90.0, reference=100.0, reference_is="floor",
                  goal="ratio >= 0.8", holds=holds)


def test_a_record_holds_what_is_needed_to_repeat_it(results: Path) -> None:
    harness.record(_figure(), "python -m benchmarks speed", harness.machine())
    document = json.loads((results / "speed.json").read_text())
    wanted = {"name", "ours", "reference", "ratio", "goal", "holds", "versions", "command",
              "machine", "date"}
    assert wanted <= document.keys()
    assert document["ratio"] == 0.9
    assert {"cpu", "cpus", "memory_gb"} <= document["machine"].keys()
    assert document["versions"]["torch"]


def test_small_scale_is_not_kept(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYMILL_BENCH_SCALE", "0.01")
    harness.record(_figure(), "-", harness.machine())
    assert not results.exists()
    assert harness.sized(1000) == 10
    assert harness.sized(10, least=2) == 2


def test_a_fault_holds_only_when_all_were_survived_and_nothing_was_lost() -> None:
    def survival(injected: int, survived: int, lost: int) -> Survival:
        return Survival(name="x", fault="f", injected=injected, survived=survived, lost=lost,
                        goal="g")

    assert survival(20, 20, 0).holds
    assert survival(20, 20, 0).upper_bound == 0.15
    assert not survival(0, 0, 0).holds
    assert not survival(20, 19, 0).holds
    assert not survival(20, 20, 1).holds


def test_the_page_shows_what_does_not_hold(results: Path) -> None:
    harness.record(_figure(holds=False), "-", harness.machine())
    harness.record(
        Survival(name="kill", fault="f", injected=3, survived=3, lost=0, goal="g"), "-",
        harness.machine(),
    )
    page = harness.render().read_text()
    assert "| speed | 90 | 100 (floor) | rows/s | 0.900 | ratio >= 0.8 | **no** |" in page
    assert "| kill | f | 3 | 3 | 0 | g | yes |" in page


def test_figures_are_found_by_their_run() -> None:
    assert {"contract", "endpoint", "ingest", "trials"} <= set(harness.names_in("benchmarks"))
    assert set(harness.names_in("benchmarks.chaos")) >= {"bundle-flip", "search-kill"}
    assert harness.main("benchmarks", ["no-such"]) == 2
