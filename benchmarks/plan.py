"""What `raymill plan` refuses and accepts, and how far its dry run is from the run that follows.

1. 20 specs that can never be, on made-up machines, are refused with their arithmetic.
2. 20 that can (see plan_cases) are accepted by the verb and then run to their end, one of them to
   an endpoint that answers; on this machine as 2 CPUs, as 4 with two GPUs that Ray only counts, and
   as three raylets of one CPU. A case that is not over in its time has hung, and is ended.
3. Of four projects, the ratio of the estimated to the measured time (the worse way round), and of
   the memory. The run begins without what the dry run has kept. Ours is the worst ratio of time; 1
   is exact.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from pyarrow import parquet

import raymill
from benchmarks.harness import Figure, sized
from benchmarks.plan_cases import FEASIBLE, IMPOSSIBLE, Feasible
from raymill.cli.main import main
from raymill.cluster.attach import located
from raymill.cluster.local import ray_session
from raymill.cluster.spec import ClusterSpec
from raymill.cluster.up import down, up
from raymill.errors import RaymillError
from raymill.events import Event
from raymill.plan import make
from raymill.ports import free_port
from raymill.serving.client import predict
from raymill.serving.service import stop
from raymill.spec import spec_from

CASES: dict[str, dict[str, Any]] = {
    "search of trees and networks": {"tuning.trials": 4, "training.epochs": 6},
    "search of a line": {"model.family": "linear", "tuning.trials": 6, "training.epochs": 6},
    "one network": {"model.family": "mlp", "tuning.trials": 0, "training.epochs": 12},
    "two workers": {"model.family": "mlp", "tuning.trials": 0, "training.workers": 2,
                    "training.epochs": 6},
}
ROWS = 40_000
EXAMPLES = Path(__file__).parents[1] / "examples"
TINY = """name: p
data: {source: %s, target: %s, columns: {%s}}
training: {epochs: 2}
objective: {baselines: [constant], bootstrap: 100}
"""
PROJECTS = {"table": TINY % ("rows.parquet", "y", ""),
            "tickets": TINY % ("tickets.csv", "queue", "subject: text"),
            "digits": TINY % ("digits.parquet", "digit", "image: image")}
BOXES: dict[str, dict[str, int]] = {"box": {"cpus": 2, "gpus": 0}, "gpus": {"cpus": 4, "gpus": 2}}
LIMIT_S = 240


def project(folder: Path, rows: int) -> Path:
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, 12))
    columns: dict[str, Any] = {f"x{i}": x[:, i] for i in range(12)}
    odds = 1 / (1 + np.exp(-x[:, :3].sum(axis=1)))
    columns["y"] = np.where(random.random(rows) < odds, "yes", "no")
    parquet.write_table(pa.table(columns), folder / "rows.parquet")
    spec = folder / "spec.yaml"
    spec.write_text("name: p\ndata: {source: rows.parquet, target: y}\n")
    return spec


def held(process: psutil.Process) -> float:
    """MB that a process and all below it hold, without what they share."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            about = each.memory_info()
            total += about.rss - about.shared
        except psutil.Error:
            continue
    return total / 2**20


def told(folder: Path, home: str, *arguments: str) -> tuple[dict[str, Any], float, float]:
    """The JSON that a verb prints, its seconds, and its most memory in MB."""
    most, began = 0.0, time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "raymill", *arguments, "--json"], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "RAYMILL_HOME": str(folder / home)})
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(process.communicate()[0]))
    reader.start()
    while reader.is_alive():
        with contextlib.suppress(psutil.Error):
            most = max(most, held(psutil.Process(process.pid)))
        reader.join(0.2)
    seconds = time.monotonic() - began
    if process.returncode not in (0, 3):
        raise RuntimeError(f"raymill {' '.join(arguments)} ended with {process.returncode}")
    found: dict[str, Any] = json.loads(said[0])
    return found, seconds, most


def apart(one: float, other: float) -> float:
    return max(one, other) / min(one, other)


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        project(folder, sized(ROWS, 2000))
        sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        planned, dry_s, _ = told(folder, "dry", "plan", "spec.yaml", "--dry-run", *sets)
        estimate = planned["estimate"]
        _, seconds, memory = told(folder, "real", "run", "spec.yaml", *sets)
    return {"estimated_s": round(estimate["seconds"], 1), "took_s": round(seconds, 1),
            "time_apart": round(apart(estimate["seconds"], seconds), 2),
            "estimated_mb": round(estimate["memory_mb"]), "held_mb": round(memory),
            "memory_apart": round(apart(estimate["memory_mb"], memory), 2),
            "dry_run_s": round(dry_s, 1), "parts": {p["name"]: round(p["seconds"], 1)
                                                    for p in estimate["parts"]}}


def refused() -> list[dict[str, Any]]:
    """The impossible specs, and whether each was refused with its arithmetic and a cure."""
    found = []
    for name, nodes, parts, arithmetic in IMPOSSIBLE:
        spec = spec_from({"name": "p", "data": {"source": "x.csv", "target": "y"}, **parts})
        problems = make(spec, nodes, 10).problems
        said = [str(problem) for problem in problems]
        found.append({"what": name, "said": said, "ok": any(arithmetic in each for each in said)
                      and all(problem.cure for problem in problems)})
    return found


def projects(folder: Path) -> None:
    """The small table, tickets and digits, and a spec for each."""
    project(folder, 600)
    for maker, arguments in (("text", ["--tickets", "400"]), ("digits", [])):
        subprocess.run([sys.executable, str(EXAMPLES / maker / "make_data.py"), str(folder),
                        *arguments], check=True, capture_output=True)
    for name, text in PROJECTS.items():
        (folder / f"{name}.yaml").write_text(text)


@contextlib.contextmanager
def machines(kind: str, home: Path) -> Iterator[list[str]]:
    """This process's Ray for some cases, and what their specs say of it."""
    if kind == "raylets":
        up(home, workers=3)
        try:
            with ray_session(located(ClusterSpec(address="auto"), home)):
                yield ["cluster.address=auto"]
        finally:
            down(home)
        return
    with ray_session(ClusterSpec.model_validate({**BOXES[kind], "object_store_mb": 400})):
        yield [f"cluster.{key}={value}" for key, value in BOXES[kind].items()]


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """End what the block does once it hangs.

    Raises:
        TimeoutError: it was not over in time.
    """
    def ring(*_: Any) -> None:
        raise TimeoutError(f"not over after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def accepted(case: Feasible, folder: Path, settings: list[str]) -> dict[str, Any]:
    """Plan a case by the verb, and run it to its end on the machines that are there.

    Each has seeds of its own: else it would take over what another has trained with other workers.
    """
    seed, kept = FEASIBLE.index(case), []
    settings = [*settings, f"training.seed={seed}", f"tuning.seed={seed}",
                *(f"{key}={value}" for key, value in case.settings.items())]

    def hear(event: Event) -> None:
        if event.kind == "stage" and event.data["status"] == "skipped":
            kept.append(event.data["name"])

    spec, said, began = folder / f"{case.rows}.yaml", io.StringIO(), time.monotonic()
    sets = [part for each in settings for part in ("--set", each)]
    with contextlib.redirect_stdout(said):
        code = main(["plan", str(spec), "--json", *sets])
    found: dict[str, Any] = {"what": case.name, "machines": case.machines, "accepted": code == 0,
                             "ok": False}
    try:
        with limited(LIMIT_S):
            result = raymill.run(raymill.load_spec(spec, settings), notify=hear)
    except (RaymillError, TimeoutError) as error:
        return found | {"said": f"{type(error).__name__}: {error}"[:800]}
    states = [trial["state"] for trial in result.search.trials]
    stages = json.loads(said.getvalue())["stages"]
    return found | {
        "ok": code == 0 and result.version > 0 and "failed" not in states
        and not {"search", "train"} & set(kept), "skipped": kept,
        "at_once": {stage["name"]: stage["at_once"] for stage in stages},
        "trials": len(states), "version": result.version,
        "seconds": round(time.monotonic() - began, 1)}


def answering(case: Feasible, done: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Serve what a case made, ask it, and stop it."""
    if not case.served or not done["ok"]:
        return done
    status = raymill.serve(f"p:{done['version']}", address="local",
                           overrides=[f"serving.port={free_port()}"])
    try:
        [answer] = predict(status.url, [{f"x{i}": 0.5 for i in range(12)}])
    finally:
        stop(folder / "home", "p")
    return done | {"replicas": status.replicas, "answer": answer,
                   "ok": status.replicas == case.served and answer["prediction"] in ("yes", "no")}


def completed() -> list[dict[str, Any]]:
    """The feasible specs, one after the other."""
    found = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "home").mkdir()
        projects(folder)
        os.environ["RAYMILL_HOME"] = str(folder / "home")
        for kind in ("box", "gpus", "raylets"):
            cases = [case for case in FEASIBLE if case.machines == kind]
            with machines(kind, folder / "home") as settings:
                done = [accepted(case, folder, settings) for case in cases]
            found += [answering(*pair, folder) for pair in zip(cases, done, strict=True)]
            print(json.dumps(found[-len(cases):], indent=1), file=sys.stderr, flush=True)
        del os.environ["RAYMILL_HOME"]
    return found


def run() -> Figure:
    impossible, feasible = refused(), completed()
    found = {name: measure(settings) for name, settings in CASES.items()}
    worst = max(case["time_apart"] for case in found.values())
    memory = max(case["memory_apart"] for case in found.values())
    return Figure(
        name="plan", unit="times apart", ours=worst, reference=1.0, reference_is="the run itself",
        goal="20 of 20 refused, 20 of 20 accepted and completed; time within 2, memory within 1.5 "
             "on every run",
        holds=worst <= 2 and memory <= 1.5 and all(case["ok"] for case in impossible + feasible),
        details={"refused": sum(case["ok"] for case in impossible),
                 "completed": sum(case["ok"] for case in feasible), "memory_apart": memory,
                 "cases": found, "impossible": impossible, "feasible": feasible},
    )
