"""`raymill serve status --watch`: services live on a terminal, a line a second elsewhere."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .output import clean

if TYPE_CHECKING:
    from rich.table import Table

    from raymill.serving.watch import Glance

_EVERY_S = 1.0
COLUMNS = ("name", "state", "replicas", "requests/s", "p50 ms", "p99 ms", "held", "429/s", "5xx/s",
           "version")


def watch(home: Path, name: str | None, *, as_json: bool, looks: int | None = None) -> None:
    """Until Ctrl-C, or for `looks`; with `as_json` a JSON document a line."""
    from raymill.serving.watch import Watch

    watched = Watch(home, name)
    if sys.stdout.isatty() and not as_json:
        from rich.live import Live

        with Live(table(watched.look()), auto_refresh=False) as live:
            while looks is None or (looks := looks - 1) > 0:
                time.sleep(_EVERY_S)
                live.update(table(watched.look()), refresh=True)
        return
    while True:
        glances = watched.look()
        if as_json:
            services = [clean(each.to_dict()) for each in glances]
            print(json.dumps({"ok": True, "time": round(time.time(), 3), "services": services}),
                  flush=True)
        for each in [] if as_json else glances:
            print(time.strftime("%H:%M:%S"), line(each), flush=True)
        if not glances and not as_json:
            print(time.strftime("%H:%M:%S"), "no service runs", flush=True)
        if looks is not None and (looks := looks - 1) <= 0:
            return
        time.sleep(_EVERY_S)


def line(glance: Glance) -> str:
    """A service in one line of words."""
    name, state, *cells = _cells(glance)
    said = zip(COLUMNS[2:], cells, strict=True)
    return f"{name} {state}  " + "  ".join(f"{what} {cell or '-'}" for what, cell in said)


def table(glances: list[Glance]) -> Table:
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold",
                  caption=None if glances else "no service runs")
    for column in COLUMNS:
        shown.add_column(column, justify="left" if column in ("name", "state", "version") else "right")
    for glance in glances:
        shown.add_row(*_cells(glance))
    return shown


def _cells(glance: Glance) -> list[str]:
    shares = "  ".join(f"{each['version']} {each['variant']} {each['share']:.0%}"
                       for each in glance.shares)
    wanted = "" if glance.replicas == glance.target else f" of {glance.target}"
    return [glance.name, glance.state, f"{glance.replicas}{wanted}", _number(glance.rate),
            _number(glance.p50_ms), _number(glance.p99_ms), str(glance.held), _number(glance.shed),
            _number(glance.failed), shares or str(glance.version)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.1f}"
