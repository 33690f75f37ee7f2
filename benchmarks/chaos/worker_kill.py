"""kill -9 of one of two workers in the middle of an epoch, again and again in one run.

A loop of its own writes down the rows of every step, and is slow enough to be hit between steps.
Survived: the run ends with bitwise the weights and optimizer of a run that was not killed; every row
was taken once an epoch (of a step that was done twice, the last time counts); and no kill cost more
steps than a checkpoint interval and the few taken while one is written.
"""

from __future__ import annotations

import json
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Survival, sized
from raymill.cluster.local import ray_session
from raymill.cluster.spec import ClusterSpec
from raymill.errors import TrainingError
from raymill.training.job import TrainJob

from .small_run import block, digest, job

ROWS, EPOCHS, EVERY, WRITING = 3200, 12, 10, 3
KILLS_A_RUN = 7
LOOP = f"ROWS = {ROWS}" + """
import json, os, pathlib, time
def loop(context):
    trainer = context._trainer
    rank = context.session.rank
    ledger = (pathlib.Path(context.job.project) / f"rank{rank}.jsonl").open("a")
    while not context.done:
        for batch in context.batches():
            rows = [round(value) for value in (batch["numeric"][:, 1] * ROWS).tolist()]
            line = [trainer.progress.epoch, trainer.feed.position.steps, os.getpid(), rows]
            context.step(context.row_losses(context.model(batch), batch["target"]).mean())
            time.sleep(0.02)
            print(json.dumps(line), file=ledger, flush=True)
        context.finish_epoch()
"""


class Rows:
    """Prepared data whose second number tells the row."""

    def tensors(self, split: str) -> list[Any]:
        import ray

        rows = ROWS if split == "train" else 120
        made = block(rows, 0 if split == "train" else 1)
        made["numeric"][:, 1] = np.arange(rows) / ROWS
        return [ray.put(made)]

    def tensor_bytes(self, split: str) -> int:
        return sum(values.nbytes for values in block(ROWS if split == "train" else 120, 0).values())


def ledger(folder: Path, rank: int) -> list[list[Any]]:
    """What a rank wrote down: [epoch, step, process, rows] a step; a torn last line is left out."""
    path, lines = folder / f"rank{rank}.jsonl", []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


class Killer(threading.Thread):
    """Kills a worker at seeded times while the run makes new steps."""

    def __init__(self, folder: Path, rng: random.Random, kills: int) -> None:
        super().__init__(daemon=True)
        self.folder, self.rng, self.kills = folder, rng, kills
        self.done = list[dict[str, Any]]()
        self.ended = threading.Event()

    def run(self) -> None:
        dead = set[int]()
        while len(self.done) < self.kills and not self.ended.wait(0.02):
            rank = self.rng.randrange(2)
            lines = ledger(self.folder, rank)
            if not lines or lines[-1][2] in dead:
                continue  # the group has not begun again
            if self.ended.wait(self.rng.uniform(0.05, 1.0)):
                return
            epoch, step, pid, _ = ledger(self.folder, rank)[-1]
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                return  # the run is over
            self.done.append({"rank": rank, "epoch": epoch, "step": step, "at": time.time()})
            dead |= {line[2] for r in range(2) for line in ledger(self.folder, r)}


def waste(lines: list[list[Any]]) -> list[int]:
    """The steps that each new process of a rank did again."""
    again, steps_an_epoch = [], 1 + max(line[1] for line in lines)
    for before, after in pairwise(lines):
        if before[2] != after[2]:
            done, begun = (line[0] * steps_an_epoch + line[1] for line in (before, after))
            again.append(done - begun + 1)
    return again


def once_an_epoch(ledgers: list[list[list[Any]]]) -> bool:
    """Whether the steps that count took every row once in every epoch."""
    counted = {(line[0], line[1], rank): line[3]
               for rank, lines in enumerate(ledgers) for line in lines}
    for epoch in range(EPOCHS):
        rows = Counter(row for (e, _, _), taken in counted.items() if e == epoch for row in taken)
        if rows != Counter(range(ROWS)):
            return False
    return True


def train_in(folder: Path, kills: int, rng: random.Random) -> dict[str, Any]:
    """A run with so many kills; what came of it."""
    from raymill.training.distributed import train

    folder.mkdir()
    (folder / "ledger_loop.py").write_text(LOOP)
    wanted: TrainJob = job(
        epochs=EPOCHS, patience=None, workers=2, cpus_per_worker=1, checkpoint_every=EVERY,
        max_failures=kills + 2, loop="ledger_loop:loop")
    own = TrainJob.from_dict({**wanted.to_dict(), "project": str(folder)})
    killer = Killer(folder, rng, kills)
    killer.start()
    error = ""
    try:
        result = train(own, Rows(), folder / "out")  # type: ignore[arg-type]
    except TrainingError as problem:
        error, result = str(problem), None
    finally:
        killer.ended.set()
        killer.join()
    ledgers = [ledger(folder, rank) for rank in range(2)]
    exact = [resume["exact"] for resume in result.resumes] if result else []
    return {
        "kills": killer.done, "error": error, "waste": waste(ledgers[0]), "exact": exact,
        "once": once_an_epoch(ledgers),
        "digest": digest(folder / "out" / "checkpoints") if result else "",
    }


def run() -> Survival:
    rng = random.Random(0)
    outcomes = list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as place, ray_session(ClusterSpec(cpus=4)):
        clean = train_in(Path(place) / "clean", 0, rng)
        left = sized(21, 2)
        while left > 0 and len(outcomes) < 8:
            folder = Path(place) / str(len(outcomes))
            outcomes.append(train_in(folder, min(left, KILLS_A_RUN), rng))
            left -= len(outcomes[-1]["kills"])
    most = max((steps for outcome in outcomes for steps in outcome["waste"]), default=0)
    injected = sum(len(outcome["kills"]) for outcome in outcomes)
    good = [o for o in outcomes if o["digest"] == clean["digest"] and o["once"] and clean["once"]
            and max(o["waste"], default=0) <= EVERY + WRITING]
    return Survival(
        name="worker-kill", fault="kill -9 of one of 2 workers mid-epoch", injected=injected,
        survived=sum(len(o["kills"]) for o in good), lost=len(outcomes) - len(good),
        goal="equal weight hash; each row once an epoch; at most an interval of steps done again",
        details={"seed": 0, "interval_steps": EVERY, "most_steps_done_again": most,
                 "outcomes": outcomes},
    )
