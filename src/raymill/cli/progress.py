"""Live progress on stderr: a rich view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from raymill.events import Event, Notify
from raymill.training.objective import METRICS

from .board import Board
from .output import number
from .times import duration, sparkline


class State:
    """What the events so far add up to."""

    def __init__(self) -> None:
        self.began = time.time()
        self.stages: dict[str, dict[str, Any]] = {}
        self.progress: dict[str, Any] = {}
        self.board = Board()
        self.curve: list[float] = []
        self.epoch: dict[str, Any] = {}
        self.metric = ""
        self.maximize = True
        self.lines: list[str] = []

    def add(self, event: Event) -> None:
        data = event.data
        if event.kind == "stage":
            self.stages.setdefault(data["name"], {"began": event.time}).update(data)
            if data.get("metric"):
                self.metric = self.board.metric = data["metric"]
                self.maximize = self.board.maximize = METRICS[self.metric].maximize
            if data["name"] == "search" and data["status"] == "started":
                self.board.start(data, event.time)
            self.progress = {}
            self.epoch = {}
        elif event.kind == "progress":
            if data["stage"] == "search":
                self.board.progress(data["done"], data.get("leaders", ()))
            self.progress = data
        elif event.kind == "epoch":
            value = data["metrics"].get(f"val_{self.metric}")
            if data.get("trial") is not None:
                self.board.epoch(data, value)
                return
            self.epoch = data
            self.curve += [value] if value is not None else []
        elif event.kind == "trial":
            self.board.trial(data)
        elif event.kind in ("note", "warning"):
            self.lines.append(("! " if event.kind == "warning" else "") + data["text"])


def plain_line(event: Event, state: State) -> str | None:
    """The line that says `event`; None: nothing worth a line."""
    data = event.data
    if event.kind == "stage":
        took = f" in {duration(data['seconds'])}" if data.get("seconds") is not None else ""
        detail = f": {data['detail']}" if data.get("detail") else ""
        return f"{data['name']} {data['status']}{took}{detail}"
    if event.kind == "epoch" and data.get("trial") is None:
        return "  " + _epoch_text(data, state.metric)
    if event.kind == "trial" and data["state"] != "running":
        params = " ".join(
            f"{k.rpartition('.')[2]}={number(v) if isinstance(v, float) else v}"
            for k, v in (data.get("params") or {}).items()
        )
        value = f" {state.metric} {number(data['value'])}" if data.get("value") is not None else ""
        cause = f" ({data['cause']})" if data.get("cause") else ""
        return (f"  trial {data['number']} {data['state']}{value}{cause} {params}  "
                f"[{state.board.summary(event.time)}]")
    if event.kind in ("note", "warning"):
        return f"  {'warning: ' if event.kind == 'warning' else ''}{data['text']}"
    return None


def _epoch_text(data: dict[str, Any], metric: str) -> str:
    metrics = data["metrics"]
    shown = [f"{k} {number(metrics[k])}" for k in ("trees", "train_loss", "val_loss", f"val_{metric}")
             if metrics.get(k) is not None]
    speed = f"  {data['rows_per_s']:,.0f} rows/s" if data.get("rows_per_s") else ""
    return f"epoch {data['epoch']}/{data['epochs']}  {'  '.join(shown)}{speed}"


def _view(state: State) -> Group:
    now = time.time()
    table = Table.grid(padding=(0, 2))
    for name, stage in state.stages.items():
        status = stage["status"]
        style = {"finished": "green", "skipped": "dim", "failed": "red"}.get(status, "bold cyan")
        seconds = stage.get("seconds")
        clock = now - stage["began"] if seconds is None and status == "started" else seconds
        table.add_row(Text(name, style=style), Text(status, style=style),
                      Text(duration(clock) if clock is not None else ""),
                      Text(str(stage.get("detail") or ""), style="dim"))
    parts: list[Any] = [table]
    searching = state.stages.get("search", {}).get("status") == "started"
    if searching and state.board.trials:
        parts.append(state.board.view(now))
    if state.epoch:
        left = (state.epoch["epochs"] - state.epoch["epoch"]) * _epoch_seconds(state)
        curve = sparkline(state.curve, 24)
        parts.append(Text(f"{_epoch_text(state.epoch, state.metric)}  {curve}  "
                          f"at most {duration(left)} left"))
    elif state.progress and not searching:
        total = state.progress.get("total")
        of = f" of {total:,}" if total else ""
        parts.append(Text(f"{state.progress['stage']}: {state.progress['done']:,}{of} "
                          f"{state.progress['unit']}", style="dim"))
    parts.extend(Text(line, style="yellow" if line.startswith("! ") else "dim")
                 for line in state.lines[-6:])
    return Group(*parts)


def _epoch_seconds(state: State) -> float:
    began = state.stages.get("train", {}).get("began", time.time())
    return (time.time() - float(began)) / max(1, int(state.epoch["epoch"]))


Shown = AbstractContextManager[Notify]


@contextmanager
def shown() -> Iterator[Notify]:
    """A `Notify` that shows events on stderr until the block ends."""
    state = State()
    console = Console(stderr=True)
    if not console.is_terminal:
        def print_line(event: Event) -> None:
            state.add(event)
            if (line := plain_line(event, state)) is not None:
                clock = time.time() - state.began
                print(f"[{clock:6.1f}s] {line}", file=sys.stderr, flush=True)

        yield print_line
        return
    with Live(console=console, refresh_per_second=4, get_renderable=lambda: _view(state)):
        yield state.add
