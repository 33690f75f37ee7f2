"""A machine is lost while a run works on a cluster of several raylets: kill -9 of the raylet that
holds the workers of a training, the trials of a search, the tasks that read data, the actors of a
batch scoring, a replica of a service; and of the head.
Survived: the verb ends well without it, within its own retries; a service answers every request of
an open loop, and has its replicas again on another node; after the head's loss a run ends with a
cause, nothing of the cluster is left, and the same command goes on on a new cluster.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
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
LIMIT_S = 240.0
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


def lose_a_worker(verb: str, text: str, find: Find) -> dict[str, Any]:
    """Kill a node once the verb has said `text`; how it ended."""
    with tempfile.TemporaryDirectory() as place:
        folder, home = Path(place), Path(place) / "home"
        home.mkdir()
        rows(folder, sized(20_000, 2_000))
        (folder / "spec.yaml").write_text(SPEC)
        up(home, workers=3)
        try:
            run = Verb(folder, home, verb, "spec.yaml")
            reached = run.until(text)
            killed, began = kill_node(home, find) if reached else "", time.monotonic()
            code = run.ends()
            return {"what": verb, "killed": killed, "exit": code,
                    "seconds_after": round(time.monotonic() - began, 1),
                    "ok": bool(killed) and code == 0,
                    "said": "" if code == 0 else run.log.read_text()[-1500:]}
        finally:
            down(home)


def lose_a_scorer() -> dict[str, Any]:
    """Kill a node under a batch scoring, and count its rows."""
    with tempfile.TemporaryDirectory() as place:
        folder, home = Path(place), Path(place) / "home"
        home.mkdir()
        count = sized(20_000, 2_000)
        rows(folder, count)
        (folder / "spec.yaml").write_text(SPEC)
        up(home, workers=3)
        try:
            made = Verb(folder, home, "run", "spec.yaml", "--set", "tuning.trials=0",
                        "--set", "objective.baselines=[constant]").ends()
            for part in range(30):
                parquet.write_table(parquet.read_table(folder / "rows.parquet"),
                                    folder / f"in-{part}.parquet")
            run = Verb(folder, home, "score", "nodes", "in-*.parquet", "out", "--address", "auto")
            end = time.monotonic() + LIMIT_S
            while run.process.poll() is None and time.monotonic() < end and not list(
                    (folder / "out").rglob("part-*")):
                time.sleep(0.1)
            killed, began = kill_node(home, named("ray::MapWorker", "ray::Map", "ray::_Map")), (
                time.monotonic())
            code = run.ends()
            scored = sum(parquet.read_metadata(p).num_rows
                         for p in (folder / "out").rglob("*.parquet"))
            return {"what": "score", "trained": made, "killed": killed, "exit": code,
                    "rows": scored, "rows_wanted": 30 * count,
                    "seconds_after": round(time.monotonic() - began, 1),
                    "ok": bool(killed) and code == 0 and scored == 30 * count,
                    "said": "" if code == 0 else run.log.read_text()[-1500:]}
        finally:
            down(home)


def lose_a_replica() -> dict[str, Any]:
    """Kill a node under a service of two replicas, in an open loop at half of what they do."""
    with tempfile.TemporaryDirectory() as place:
        home = Path(place) / "home"
        home.mkdir()
        found = up(home, workers=3)
        try:
            with service(plain_bundle(Path(place)), home, cluster=found.address,
                         replicas=ReplicasSpec(min=2, max=2)) as served:
                port, body = port_of(served), json_body(1)
                seconds = max(2.0, 10 * scale())
                peak = drive("127.0.0.1", port, body, connections=32, duration_s=seconds)
                told: dict[str, Any] = {"what": "serve", "killed": ""}

                async def kill() -> None:
                    await asyncio.sleep(1)
                    killed, began = kill_node(home, named("ServeReplica:bench")), time.monotonic()
                    await asyncio.sleep(2)  # until it is known
                    back = False
                    while not back and time.monotonic() - began < LIMIT_S:
                        await asyncio.sleep(0.25)
                        back = (await asyncio.to_thread(status, home, "bench"))[0].replicas == 2
                    told.update(killed=killed, back=back,
                                seconds_after=round(time.monotonic() - began, 1))

                during = drive_open(port, post("127.0.0.1", port, body),
                                    rate=peak.requests_per_s / 2, meanwhile=kill)
                lost = during.lost()
                return told | {"requests": len(during.statuses), "lost": lost,
                               "p99_ms": during.p99_ms(200),
                               "ok": bool(told["killed"]) and told["back"] and not lost["count"]}
        finally:
            down(home)


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
    results = [
        lose_a_worker("train", "epoch 3/", named("ray::RayTrainWorker", "ray::_RayTrainWorker")),
        lose_a_worker("tune", "trial 0", named("ray::ImplicitFunc", "ray::Trial", "ray::_")),
        lose_a_worker("run", "prepare data started", named("ray::")),
        lose_a_scorer(),
        lose_a_replica(),
        lose_the_head(),
    ]
    print(json.dumps(results, indent=1), file=sys.stderr)
    return Survival(
        name="nodes", fault="kill -9 of a machine's raylet, and of the head's",
        injected=len(results), survived=sum(result["ok"] for result in results),
        lost=sum(result.get("orphans", 0) + result.get("lost", {}).get("count", 0)
                 for result in results),
        goal="the verb ends well; after the head: a cause, 0 processes, resumed elsewhere",
        details={"cases": results},
    )
