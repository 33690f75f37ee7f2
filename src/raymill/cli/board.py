"""The live leaderboard of a search: who leads, who runs, how far, and how long it may take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from .output import number
from .times import duration, sparkline

SHOWN = 10
STYLES = {"complete": "green", "running": "bold cyan", "pruned": "dim", "failed": "red"}


class Board:
    """What the events of a search add up to.

    `wanted` are all that the search is to have, `before` those that an earlier call finished,
    `earlier` the best of them, `rungs` the epochs at which its scheduler decides.
    """

    def __init__(self) -> None:
        self.metric, self.maximize = "", True
        self.began = 0.0
        self.wanted = self.before = 0
        self.rungs: list[int] = []
        self.earlier: list[dict[str, Any]] = []
        self.trials: dict[int, dict[str, Any]] = {}
        self.curves: dict[int, list[float]] = {}

    def start(self, facts: dict[str, Any], time: float) -> None:
        """A search begins; `facts` are its stage's."""
        self.began = time
        self.wanted = int(facts.get("trials") or 0)
        self.rungs = list(facts.get("rungs") or [])

    def progress(self, done: int, leaders: Sequence[dict[str, Any]] = ()) -> None:
        """How many trials are done in all: what was done before is known from the first of these."""
        self.earlier = list(leaders)
        self.curves |= {trial["number"]: trial["curve"] for trial in leaders}
        ended = self._count("complete", "pruned", "failed")
        self.before = max(0, done - ended)

    def trial(self, data: dict[str, Any]) -> None:
        self.trials.setdefault(data["number"], {}).update(data)

    def epoch(self, data: dict[str, Any], value: float | None) -> None:
        trial = self.trials.setdefault(data["trial"], {"number": data["trial"], "state": "running"})
        trial |= {"epoch": data["epoch"], "epochs": data["epochs"]}
        if value is not None:
            self.curves.setdefault(data["trial"], []).append(value)

    def value(self, trial: dict[str, Any]) -> float | None:
        """A trial's value; of one that runs, its best epoch's so far."""
        if trial.get("value") is not None:
            return float(trial["value"])
        curve = self.curves.get(trial["number"], [])
        failed = trial["state"] == "failed"
        return None if failed or not curve else self._pick(curve)

    def best(self) -> tuple[float, int] | None:
        """The best value so far and its trial, running ones and those of earlier calls included."""
        known = [(value, t["number"]) for t in (*self.earlier, *self.trials.values())
                 if (value := self.value(t)) is not None]
        pick = max if self.maximize else min
        return pick(known, key=lambda pair: pair[0]) if known else None

    def left_s(self, now: float) -> float | None:
        """Seconds until all trials are done, at the pace so far; None before any has ended."""
        ended = self._count("complete", "pruned", "failed")
        left = self.wanted - self.before - ended
        if not ended or not self.began or left < 0:
            return None
        running = [t for t in self.trials.values() if t["state"] == "running"]
        under_way = float(sum(t.get("epoch", 0) / t["epochs"] for t in running if t.get("epochs")))
        return (now - self.began) / (ended + under_way) * max(0.0, left - under_way)

    def summary(self, now: float) -> str:
        """`7 of 24 trials: 2 running, 4 complete, 1 pruned · best 0.9123 (trial 5) · 3m10s left`."""
        ended = self.before + self._count("complete", "pruned", "failed")
        states = [f"{count} {state}" for state in STYLES if (count := self._count(state))]
        of = f" of {self.wanted}" if self.wanted else ""
        parts = [f"{ended}{of} trials: {', '.join(states) or 'none yet'}"]
        if (best := self.best()) is not None:
            parts.append(f"best {number(best[0])} (trial {best[1]})")
        if (left := self.left_s(now)) is not None:
            parts.append(f"about {duration(left)} left")
        return " · ".join(parts)

    def view(self, now: float) -> Group:
        """The summary, and the best trials with those that run."""
        table = Table(box=None, header_style="bold")
        for column in ("trial", "state", "rung", "epoch", self.metric or "value", "curve",
                       "parameters"):
            table.add_column(column, no_wrap=column != "parameters")
        leader = self.best()
        for trial in self._ordered()[:SHOWN]:
            state = trial["state"]
            lead = leader is not None and trial["number"] == leader[1]
            style = "bold" if lead else "dim" if state == "pruned" else ""
            table.add_row(
                Text(f"{'▸' if lead else ' '}{trial['number']}"), Text(state, STYLES[state]),
                self._rung(trial), _epochs(trial), number(self.value(trial)),
                sparkline(self.curves.get(trial["number"], [])), _params(trial), style=style)
        return Group(Text(self.summary(now)), table)

    def _ordered(self) -> list[dict[str, Any]]:
        sign = -1 if self.maximize else 1

        def rank(trial: dict[str, Any]) -> tuple[bool, float, int]:
            value = self.value(trial)
            return value is None, sign * (value or 0.0), trial["number"]

        return sorted((*self.earlier, *self.trials.values()), key=rank)

    def _rung(self, trial: dict[str, Any]) -> str:
        """How many of the scheduler's comparisons a trial has come to: `2/3`."""
        if not self.rungs:
            return ""
        return f"{sum(trial.get('epoch', 0) >= rung for rung in self.rungs)}/{len(self.rungs)}"

    def _pick(self, values: list[float]) -> float:
        return max(values) if self.maximize else min(values)

    def _count(self, *states: str) -> int:
        return sum(trial["state"] in states for trial in self.trials.values())


def _epochs(trial: dict[str, Any]) -> str:
    return f"{trial['epoch']}/{trial['epochs']}" if trial.get("epochs") else str(
        trial.get("epoch") or "")


def _params(trial: dict[str, Any]) -> str:
    return "  ".join(f"{name.rpartition('.')[2]} {number(value) if isinstance(value, float) else value}"
                     for name, value in (trial.get("params") or {}).items())
