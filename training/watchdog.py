"""Finds workers whose steps have stopped, and ends them, so that the group is restarted.

It runs in the driver and looks at the beats that the workers send: a worker that hangs can't tell.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raymill.events import Notify, warn
from raymill.specs import seconds

from .mailbox import Beat

FLOOR_S = 30.0
STEPS = 20  # a worker may take as long as this many of its steps
DUMP = signal.SIGUSR2
_DUMP_S, _ANSWER_S = 2.0, 60.0
_WAITING = ("distributed_c10d.py", "_engine_run_backward")  # for another rank, most likely


@dataclass(frozen=True)
class Look:
    """What was seen of a worker's process: its state in the kernel (`T` is stopped, empty is gone)
    and its Python stacks, most recent call first."""

    state: str
    stack: str

    @property
    def stopped(self) -> bool:
        return self.state in ("T", "t")

    @property
    def waits(self) -> bool:
        """Whether it may be waiting for another rank."""
        return any(word in self.stack for word in _WAITING)

    @property
    def place(self) -> str:
        """Where it hangs, in a few words."""
        if self.stopped:
            return "its process is stopped"
        lines = [line.strip() for line in self.stack.splitlines() if line.startswith("  File")]
        own = [line for line in lines if "threading.py" not in line]
        return "at " + own[0] if own else "it does not answer"


def dump_on_signal(path: Path) -> IO[str]:
    """Let this process write its threads' stacks to `path` on `DUMP`; keep what is returned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
    faulthandler.register(DUMP, file=file, all_threads=True)
    return file


def stack_file(folder: Path, rank: int) -> Path:
    """Where a rank's stacks are written."""
    return folder / "stacks" / f"rank-{rank}.txt"


def overdue(
    beats: Mapping[int, tuple[Beat, float]], floor_s: float
) -> dict[int, tuple[Beat, float]]:
    """The workers that have not got on for `floor_s`, or `STEPS` of their steps if longer."""
    return {rank: (beat, age) for rank, (beat, age) in beats.items()
            if age > max(floor_s, STEPS * beat.typical_s)}


def culprits(looks: Mapping[int, Look], others_live: bool) -> list[int]:
    """Those of the late ranks that hang: stopped ones, else those that wait for nobody, else all.

    Where all of the late ones wait and another rank gets on (it may be slow to write), none hangs.
    """
    stopped = [rank for rank, look in looks.items() if look.stopped or not look.state]
    alone = [rank for rank, look in looks.items() if not look.waits]
    return stopped or alone or ([] if others_live else list(looks))


class Watchdog:
    """Ends hanging workers of a run. `folder` is the run's, where stacks are written."""

    def __init__(self, limit: str, folder: Path, notify: Notify) -> None:
        self.off = limit == "off"
        self.floor_s = FLOOR_S if limit in ("auto", "off") else seconds(limit)
        self._folder, self._notify = folder, notify

    def look(self, beats: Mapping[int, tuple[Beat, float]]) -> bool:
        """End what hangs, and tell; whether something did."""
        late = {} if self.off else overdue(beats, self.floor_s)
        if not late:
            return False
        looks = {rank: look_at(beat, stack_file(self._folder, rank))
                 for rank, (beat, _) in late.items()}
        hanging = culprits(looks, others_live=len(late) < len(beats))
        for rank in hanging:
            beat, age = late[rank]
            where = f"rank {rank} (process {beat.pid} on node {beat.node[:8]})"
            warn(self._notify, f"{where} has made no step for {age:.0f} s, {looks[rank].place}; it "
                 f"is ended, and the workers start again from the last checkpoint; stacks are in "
                 f"{stack_file(self._folder, rank).parent}")
            end(beat)
        return bool(hanging)


def look_at(beat: Beat, stacks: Path) -> Look:
    """Look at the process that sent `beat`, and have it write its stacks (see `dump_on_signal`)."""
    state, stack = _on_node(beat.node, _inspect, beat.pid, str(stacks)) or ("", "")
    return Look(state, stack)


def end(beat: Beat) -> None:
    """Kill the process that sent `beat`, if it is there."""
    _on_node(beat.node, _end, beat.pid)


def _on_node(node: str, function: Any, *arguments: Any) -> Any:
    """The function's result on a node; None when the node does not answer."""
    pinned = NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(num_cpus=0, max_retries=0)(function)
    try:
        return ray.get(task.options(scheduling_strategy=pinned).remote(*arguments),
                       timeout=_ANSWER_S)
    except ray.exceptions.RayError:
        return None


def _inspect(pid: int, stacks: str) -> tuple[str, str]:
    state = _state(pid)
    if state in ("", "T", "t"):
        return state, ""
    os.kill(pid, DUMP)
    time.sleep(_DUMP_S)
    path = Path(stacks)
    return state, path.read_text(errors="replace") if path.exists() else ""


def _end(pid: int) -> None:
    if _state(pid):
        os.kill(pid, signal.SIGKILL)


def _state(pid: int) -> str:
    """The state of a Ray worker's process; empty when there is no such worker."""
    try:
        if not Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):
            return ""
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
