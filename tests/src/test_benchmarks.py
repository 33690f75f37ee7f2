"""The harness records what was measured, and RESULTS.md says no more than the records."""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from pathlib import Path

import pytest

from benchmarks import harness
from benchmarks.harness import Figure, Survival
from benchmarks.open_loop import Open, drive_open


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


def test_the_open_loop_tells_why_requests_were_lost_and_when() -> None:
    """A server that answers some requests, refuses some, and hangs up on some."""
    answered = iter(range(10**6))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"x"):
            number = next(answered)
            if number % 5 == 3:
                break
            status, body = (b"503 No", b"not now") if number % 5 == 4 else (b"200 OK", b"{}")
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))
        writer.close()

    async def serving(started: queue.Queue[int], ended: threading.Event) -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            started.put(server.sockets[0].getsockname()[1])
            await asyncio.to_thread(ended.wait)

    started, ended = queue.Queue[int](), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(serving(started, ended)))
    thread.start()
    load = Open()

    async def meanwhile() -> None:
        load.mark("only")
        while len(load.statuses) < 20:
            await asyncio.sleep(0.01)

    drive_open(started.get(), b"x", rate=200.0, meanwhile=meanwhile, into=load)
    ended.set()
    thread.join()
    lost = load.lost()
    assert lost["sent_late_p99_ms"] >= 0 and lost["count"] == len(load.statuses) - load.count(200) == sum(lost["phases"].values())
    assert set(lost["phases"]) == {"only"} and load.lost(200, 503, 0)["count"] == 0
    assert {cause.split(" on ")[0] for cause in lost["causes"]} == {"IncompleteReadError", "503 not now"}
