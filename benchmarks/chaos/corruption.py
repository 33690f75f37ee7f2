"""The newest checkpoint is damaged in seeded ways; it must be found out, named, and passed over.

Between the damages the same folder is looked at whole, so that no alarm is false, and what is
loaded instead is compared with what was written. Every tenth damaged run is trained to its end.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import Survival, sized
from raymill.events import Event
from raymill.training.checkpoint import at, find, numbers
from raymill.training.session import Interrupted

from .small_run import STEPS, Watched, digest, job, shards, train

Damage = Callable[[random.Random, Path, Path], str]


def some_file(rng: random.Random, newest: Path) -> Path:
    return rng.choice(sorted(newest.iterdir()))


def flip(rng: random.Random, newest: Path, older: Path) -> str:
    file = some_file(rng, newest)
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    return f"a bit of {file.name} flipped"


def cut(rng: random.Random, newest: Path, older: Path) -> str:
    file = some_file(rng, newest)
    file.write_bytes(file.read_bytes()[: rng.randrange(file.stat().st_size)])
    return f"{file.name} cut short"


def delete(rng: random.Random, newest: Path, older: Path) -> str:
    file = some_file(rng, newest)
    file.unlink()
    return f"{file.name} deleted"


def swap(rng: random.Random, newest: Path, older: Path) -> str:
    one, other = rng.sample(sorted(newest.glob("*.safetensors")), 2)
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    return f"{one.name} and {other.name} swapped"


def stale(rng: random.Random, newest: Path, older: Path) -> str:
    shutil.copy(older / "manifest.json", newest / "manifest.json")
    return "an older manifest"


def older_files(rng: random.Random, newest: Path, older: Path) -> str:
    shutil.rmtree(newest)
    shutil.copytree(older, newest)
    return "an older checkpoint under the newest name"


def empty(rng: random.Random, newest: Path, older: Path) -> str:
    name = rng.choice(["manifest.json", "progress.json"])
    (newest / name).write_bytes(b"")
    return f"{name} of 0 bytes"


DAMAGES: list[Damage] = [flip, cut, delete, swap, stale, older_files, empty]


def interrupted(folder: Path) -> None:
    """A run that stopped in its second epoch, with checkpoints every 2 steps."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1
        session.stopping = steps > STEPS + 5

    session = Watched(folder, count)
    try:
        train_with(session)
    except Interrupted:
        return
    raise AssertionError("the run was not stopped")


def train_with(session: Watched) -> None:
    from raymill.training.loop import fit

    fit(job(checkpoint_every=2), *shards(), session)


def run() -> Survival:
    rng = random.Random(0)
    outcomes = list[dict[str, Any]]()
    false_alarms = ends_apart = 0
    with tempfile.TemporaryDirectory() as place:
        clean, cut_off = Path(place) / "clean", Path(place) / "cut"
        train(clean)
        interrupted(cut_off)
        newest, older = numbers(cut_off)[:2]
        whole, fallback = digest(cut_off, newest), digest(cut_off, older)
        for number in range(sized(210, 14)):
            folder = Path(place) / "damaged"
            shutil.copytree(cut_off, folder)
            found = find(folder)
            false_alarms += found.number != newest or bool(found.damaged)
            false_alarms += digest(folder) != whole
            damage = DAMAGES[number % len(DAMAGES)]
            what = damage(rng, at(folder, newest), at(folder, older))
            found = find(folder)
            named = at(folder, newest).name in found.damaged.get(newest, "")
            good = found.number == older and named and digest(folder) == fallback
            outcomes.append({"what": what, "found": good})
            if number % 10 == 0:
                told = list[Event]()
                train(folder, told.append)
                warned = any(event.kind == "warning" and "damaged" in event.data["text"]
                             for event in told)
                ends_apart += digest(folder) != digest(clean) or not warned
            shutil.rmtree(folder)
    found_out = sum(outcome["found"] for outcome in outcomes)
    return Survival(
        name="corruption", fault="the newest checkpoint damaged", injected=len(outcomes),
        survived=found_out, lost=len(outcomes) - found_out + false_alarms + ends_apart,
        goal="found and named n of n; false alarms 0; runs that end with other weights 0",
        details={"seed": 0, "clean_looks": len(outcomes), "false_alarms": false_alarms,
                 "trained_to_the_end": len(outcomes[::10]), "ended_apart": ends_apart,
                 "missed": [o["what"] for o in outcomes if not o["found"]],
                 "kinds": [damage.__name__ for damage in DAMAGES]},
    )
