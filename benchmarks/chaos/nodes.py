"""A machine is lost, or added, while a run works on a cluster of several raylets.

Lost: kill -9 of the raylet that holds the workers of a training, the trials of a search, the tasks
that read data, the actors of a batch scoring, a replica of a service; and of the head. Survived:
the verb ends well without it, within its own retries; a service answers every request of an open
loop, and has its replicas again on another node; after the head's loss a run ends with a cause,
nothing of the cluster is left, and the same command goes on on a new cluster.
Added: a raylet joins while a search, a batch scoring and an elastic training have filled the
others. Survived: a process of theirs works on it, and the verb ends well (the elastic training with
more workers than before; it is then asked to stop, and keeps a checkpoint). For the one machine
beneath all raylets, more of them are no more speed: none is measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from pyarrow import parquet

from benchmarks.harness import Survival, scale, sized
from benchmarks.load import drive, post
from benchmarks.open_loop import drive_open
from benchmarks.served import json_body, plain_bundle, port_of, service
from raymill.cluster import state
from raymill.cluster.keeper import raylet
from raymill.cluster.state import Node
from raymill.cluster.up import down, up
from raymill.reaper import marked
from raymill.serving.service import status
from raymill.serving.spec import ReplicasSpec

SPEC = """
name: nodes
data: {source: rows.parquet, target: y}
model: {family: mlp, width: 64}
training: {epochs: 12, patience: 12, batch_size: 256, workers: 2}
tuning: {trials: 6, scheduler: none, space: {training.lr: {low: 1.0e-4, high: 1.0e-2, log: true}}}
cluster: {address: auto}
"""
LIMIT_S, STORE_MB = 300.0, 200
Find = Callable[[psutil.Process], bool]


def rows(folder: Path, count: int) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(count, 10))
    columns: dict[str, Any] = {f"x{i}": x[:, i] for i in range(10)}
    odds = 1 / (1 + np.exp(-x[:, :3].sum(axis=1)))
    columns["y"] = np.where(random.random(count) < odds, "yes", "no")
    parquet.write_table(pa.table(columns), folder / "rows.parquet")


class Verb:
    """`raymill VERB` on the cluster of `home`, with its output in a file."""

    def __init__(self, folder: Path, home: Path, *arguments: str) -> None:
        self.log = folder / "out.log"
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "raymill", *arguments], cwd=folder, stdout=out,
                stderr=subprocess.STDOUT, env={**os.environ, "RAYMILL_HOME": str(home)})

    def until(self, text: str) -> bool:
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end and self.process.poll() is None:
            if text in self.log.read_text():
                return True
            time.sleep(0.1)
        return text in self.log.read_text()

    def ends(self) -> int | None:
        try:
            return self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None


def kill_node(home: Path, find: Find) -> str:
    """Kill the raylet over a process that `find` finds, not the head's; the node's name."""
    known = state.read(home)
    assert known is not None
    nodes = {node.pid: node.name for node in known.nodes if node.name != "head"}
    for process in psutil.process_iter():
        try:
            above = {parent.pid: parent for parent in process.parents()}
            if find(process) and (hit := set(above) & set(nodes)):
                owner = above[hit.pop()]
                for child in owner.children():
                    child.kill()
                owner.kill()
                return nodes[owner.pid]
        except psutil.Error:
            continue
    return ""


def named(*parts: str) -> Find:
    return lambda process: any(part in " ".join(process.cmdline()) for part in parts)


@contextmanager
def cluster(workers: int) -> Iterator[tuple[Path, Path]]:
    """A folder with the spec and rows, and a home with a cluster of raylets of one CPU each."""
    with tempfile.TemporaryDirectory() as place:
        folder, home = Path(place), Path(place) / "home"
        home.mkdir()
        rows(folder, sized(20_000, 2_000))
        (folder / "spec.yaml").write_text(SPEC)
        up(home, workers=workers, object_store_mb=STORE_MB)
        try:
            yield folder, home
        finally:
            down(home)


@contextmanager
def added(home: Path) -> Iterator[psutil.Process]:
    """One more raylet, as if a machine joined. It has the cluster's mark, so `down` ends it."""
    known = state.read(home)
    assert known is not None
    head = next(node.pid for node in known.nodes if node.name == "head")
    with (home / "added.log").open("w") as log:
        child = subprocess.Popen(
            [*raylet(Node(name="added", cpus=1, gpus=0), STORE_MB), f"--address={known.address}"],
            env=psutil.Process(head).environ(), stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield psutil.Process(child.pid)
    finally:
        child.terminate()
        child.wait()


def used(node: psutil.Process, find: Find, run: Verb) -> bool:
    """Whether a process below the node is soon one that `find` finds."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end and run.process.poll() is None:
        for process in node.children(recursive=True):
            try:
                if find(process):
                    return True
            except psutil.Error:
                continue
        time.sleep(0.1)
    return False


def gain(what: str, run: Callable[[Path, Path], Verb], begun: Callable[[Path, Verb], bool],
         find: Find) -> dict[str, Any]:
    """Add a node to a cluster of two that is busy; whether it is used, and how the verb ends."""
    with cluster(workers=2) as (folder, home):
        verb = run(folder, home)
        if not begun(folder, verb):
            return {"what": f"{what}, one added", "ok": False, "said": verb.log.read_text()[-1500:]}
        began = time.monotonic()
        with added(home) as node:
            found = used(node, find, verb)
            after = round(time.monotonic() - began, 1)
            more = more_workers(verb) if what == "elastic train" and found else None
            code = verb.ends()
        return {"what": f"{what}, one added", "used": found, "seconds_until": after, "exit": code,
                **({} if more is None else {"workers": more}),
                "ok": found and (code == 0 if more is None else code == 130 and more == "2 to 3"),
                "said": "" if found else verb.log.read_text()[-1500:]}


def more_workers(verb: Verb) -> str:
    """Wait until the group of another size trains on, then ask the training to stop."""
    verb.until("workers was 2 and is 3")
    told = re.findall(r"workers was (\d+) and is (\d+)", verb.log.read_text())
    verb.process.terminate()
    return " to ".join(told[-1]) if told else "as before"


def gain_a_searcher() -> dict[str, Any]:
    def run(folder: Path, home: Path) -> Verb:
        return Verb(folder, home, "tune", "spec.yaml", "--set", "tuning.trials=500",
                    "--set", "tuning.budget.wall=120s")

    return gain("tune", run, lambda _, verb: verb.until("trial 1"), trial_process)


def gain_a_scorer() -> dict[str, Any]:
    count = sized(1200, 200)

    def run(folder: Path, home: Path) -> Verb:
        Verb(folder, home, "run", "spec.yaml", "--set", "tuning.trials=0",
             "--set", "objective.baselines=[constant]").ends()
        for part in range(count):
            (folder / f"in-{part}.parquet").hardlink_to(folder / "rows.parquet")
        return Verb(folder, home, "score", "nodes:1", "in-*.parquet", "out", "--address", "auto")

    def begun(folder: Path, verb: Verb) -> bool:
        while verb.process.poll() is None:
            if list((folder / "out").rglob("part-*")):
                return True
            time.sleep(0.1)
        return False

    return gain("score", run, begun, named("ray::MapWorker"))


def gain_a_trainer() -> dict[str, Any]:
    def run(folder: Path, home: Path) -> Verb:
        return Verb(folder, home, "train", "spec.yaml", "--set", "training.epochs=5000",
                    "--set", "training.patience=null",
                    "--set", "training.workers={min: 1, max: 3}")

    return gain("elastic train", run, lambda _, verb: verb.until("epoch 2/"),
                named("ray::RayTrainWorker", "ray::_RayTrainWorker"))


def trial_process(process: psutil.Process) -> bool:
    """A trial of Ray Tune's: its actor is named after the function that it runs."""
    line = " ".join(process.cmdline())
    return line.startswith("ray::") and "IDLE" not in line and (
        "ImplicitFunc" in line or "Trial" in line or "train" in line)


def lose_a_worker(verb: str, text: str, find: Find) -> dict[str, Any]:
    """Kill a node once the verb has said `text`; how it ended."""
    with cluster(workers=3) as (folder, home):
        run = Verb(folder, home, verb, "spec.yaml")
        reached = run.until(text)
        killed, began = kill_node(home, find) if reached else "", time.monotonic()
        code = run.ends()
        return {"what": verb, "killed": killed, "exit": code,
                "seconds_after": round(time.monotonic() - began, 1),
                "ok": bool(killed) and code == 0,
                "said": "" if code == 0 else run.log.read_text()[-1500:]}


def lose_a_scorer() -> dict[str, Any]:
    """Kill a node under a batch scoring, and count its rows."""
    count = sized(20_000, 2_000)
    with cluster(workers=3) as (folder, home):
        made = Verb(folder, home, "run", "spec.yaml", "--set", "tuning.trials=0",
                    "--set", "objective.baselines=[constant]").ends()
        for part in range(30):
            (folder / f"in-{part}.parquet").hardlink_to(folder / "rows.parquet")
        run = Verb(folder, home, "score", "nodes:1", "in-*.parquet", "out", "--address", "auto")
        end = time.monotonic() + LIMIT_S
        while run.process.poll() is None and time.monotonic() < end and not list(
                (folder / "out").rglob("part-*")):
            time.sleep(0.1)
        killed = kill_node(home, named("ray::MapWorker", "ray::Map", "ray::_Map"))
        began, code = time.monotonic(), run.ends()
        scored = sum(parquet.read_metadata(p).num_rows
                     for p in (folder / "out").rglob("*.parquet"))
        return {"what": "score", "trained": made, "killed": killed, "exit": code,
                "rows": scored, "rows_wanted": 30 * count,
                "seconds_after": round(time.monotonic() - began, 1),
                "ok": bool(killed) and code == 0 and scored == 30 * count,
                "said": "" if code == 0 else run.log.read_text()[-1500:]}


def lose_a_replica() -> dict[str, Any]:
    """Kill a node under a service of two replicas, in an open loop at half of what they do."""
    with cluster(workers=3) as (folder, home):
        found = state.read(home)
        assert found is not None
        with service(plain_bundle(folder), home, cluster=found.address,
                     replicas=ReplicasSpec(min=2, max=2)) as served:
            port, body = port_of(served), json_body(1)
            seconds = max(2.0, 10 * scale())
            peak = drive("127.0.0.1", port, body, connections=32, duration_s=seconds)
            told: dict[str, Any] = {"what": "serve", "killed": ""}

            async def kill() -> None:
                await asyncio.sleep(1)
                killed, began = kill_node(home, named("ServeReplica:bench")), time.monotonic()
                missed = back = False
                while not back and time.monotonic() - began < LIMIT_S:
                    await asyncio.sleep(0.25)
                    count = (await asyncio.to_thread(status, home, "bench"))[0].replicas
                    missed, back = missed or count < 2, missed and count == 2
                told.update(killed=killed, back=back,
                            seconds_after=round(time.monotonic() - began, 1))

            during = drive_open(port, post("127.0.0.1", port, body),
                                rate=peak.requests_per_s / 2, meanwhile=kill)
            lost = during.lost()
            return told | {"requests": len(during.statuses), "lost": lost,
                           "p99_ms": during.p99_ms(200),
                           "ok": bool(told["killed"]) and told["back"] and not lost["count"]}


def lose_the_head() -> dict[str, Any]:
    """Kill the GCS's node under a training; then the same command on a new cluster."""
    with tempfile.TemporaryDirectory() as place:
        folder, home = Path(place), Path(place) / "home"
        home.mkdir()
        rows(folder, sized(20_000, 2_000))
        (folder / "spec.yaml").write_text(SPEC)
        found = up(home, workers=2)
        run = Verb(folder, home, "train", "spec.yaml")
        reached = run.until("epoch 3/")
        head = psutil.Process(next(node.pid for node in found.nodes if node.name == "head"))
        began = time.monotonic()
        for process in [*head.children(), head]:
            process.kill()
        code = run.ends()
        took = round(time.monotonic() - began, 1)
        end = time.monotonic() + 20
        while (left := marked(f"RAYMILL_SESSION={found.mark}".encode())) and time.monotonic() < end:
            time.sleep(0.2)
        up(home, workers=2)
        try:
            again = Verb(folder, home, "train", "spec.yaml")
            resumed = again.ends()
            text = again.log.read_text()
        finally:
            down(home)
        return {"what": "head", "exit": code, "seconds_after": took, "orphans": len(left),
                "resumed_exit": resumed, "went_on": "(goes on)" in text,
                "ok": reached and code == 1 and not left and resumed == 0,
                "said": text[-1500:] if resumed else run.log.read_text()[-400:]}


def run() -> Survival:
    results: list[dict[str, Any]] = [
        lose_a_worker("train", "epoch 3/", named("ray::RayTrainWorker", "ray::_RayTrainWorker")),
        lose_a_worker("tune", "trial 0", named("ray::ImplicitFunc", "ray::Trial", "ray::_")),
        lose_a_worker("run", "prepare data started", named("ray::")),
        lose_a_scorer(),
        lose_a_replica(),
        lose_the_head(),
        gain_a_searcher(),
        gain_a_scorer(),
        gain_a_trainer(),
    ]
    print(json.dumps(results, indent=1), file=sys.stderr)
    return Survival(
        name="nodes", fault="kill -9 of a machine's raylet, and of the head's; a machine added",
        injected=len(results), survived=sum(result["ok"] for result in results),
        lost=sum(result.get("orphans", 0) + result.get("lost", {}).get("count", 0)
                 for result in results),
        goal="the verb ends well; after the head: a cause, 0 processes, resumed elsewhere; an added "
             "machine is used by a search, a scoring and an elastic training",
        details={"cases": results},
    )
