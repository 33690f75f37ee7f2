"""kill -9 at seeded places inside the writing of a checkpoint, then the same run again.

Each run is a process of its own, forked from one that has imported all: it dies at a failpoint in
the background writer while its main thread trains on, and some are killed a second time when they
go on. Survived: the last run ends with bitwise the weights and optimizer of a run that was never
killed; it found no damaged checkpoint, and left no half-written folder.
"""

from __future__ import annotations

import json
import os
import random
import signal
import tempfile
import traceback
from pathlib import Path
from typing import Any

from benchmarks.harness import Survival, sized
from raymill import failpoints
from raymill.events import Event

from .small_run import digest, train

# Failpoint, and how often a run passes it at least.
POINTS = {
    "checkpoint.async": 12, "artifact.before_write": 12, "checkpoint.mid_file": 100,
    "artifact.before_manifest": 12, "artifact.before_rename": 12, "artifact.after_rename": 12,
    "checkpoint.during_prune": 8,
}


def forked(folder: Path, fail: str = "") -> tuple[int, dict[str, Any]]:
    """A run in a process of its own; its wait status and what it told."""
    said = folder.with_suffix(".json")
    said.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            failpoints._rules = failpoints.parse(fail)
            told = list[Event]()
            result = train(folder, told.append, checkpoint_every=3)
            warnings = [event.data["text"] for event in told if event.kind == "warning"]
            said.write_text(json.dumps({"warnings": warnings, "resumes": result.resumes}))
            status = 0
        except BaseException:  # noqa: BLE001 - the child must not run on in the parent's code
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    return status, json.loads(said.read_text()) if said.exists() else {}


def killed(status: int) -> bool:
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def attempt(folder: Path, rules: list[str], expected: str) -> dict[str, Any]:
    """Kill by each rule in turn, then run to the end."""
    kills = sum(killed(forked(folder, rule)[0]) for rule in rules)
    status, said = forked(folder)
    left = [path.name for path in folder.iterdir() if not path.name.startswith("ckpt-")]
    resumes = said.get("resumes", [])
    return {
        "rules": rules, "kills": kills, "left": left, "warnings": said.get("warnings"),
        "good": status == 0 and digest(folder) == expected and not left
        and not said["warnings"] and all(r["exact"] == "bitwise" for r in resumes),
    }


def run() -> Survival:
    import torch

    torch.set_num_threads(1)  # a fork takes no threads along
    rng = random.Random(0)
    outcomes = list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as place:
        status, _ = forked(Path(place) / "clean")
        assert status == 0, "the run that is not killed must end well"
        expected = digest(Path(place) / "clean")
        for number in range(sized(56, 7)):
            names = [list(POINTS)[number % len(POINTS)]]
            if number % 4 == 3:
                names.append(rng.choice(list(POINTS)))
            rules = [f"{name}:kill@{rng.randint(1, POINTS[name])}" for name in names]
            outcomes.append(attempt(Path(place) / str(number), rules, expected))
    injected = [outcome for outcome in outcomes if outcome["kills"]]
    bad = [outcome for outcome in outcomes if not outcome["good"]]
    return Survival(
        name="checkpoint-kill", fault="kill -9 inside the writing of a checkpoint",
        injected=len(injected), survived=len([o for o in injected if o["good"]]), lost=len(bad),
        goal="equal weight hash n of n; half-written folders left: 0",
        details={"seed": 0, "kills": sum(o["kills"] for o in outcomes), "points": list(POINTS),
                 "bad": bad},
    )
