"""The report's part about the search, alone or within a run's page."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import charts, search_charts
from .formats import exact
from .results import maximised
from .templating import TEMPLATES, environment

LEADERS = 12  # trials that the leaderboard shows


@dataclass(frozen=True)
class SearchData:
    """What a search left behind, as plain data.

    Args:
        trials: one dict a trial: `number`, `state`, `value`, `params`, `values` (by epoch),
            `seconds`, `cause`, `place` (`gpus`, `device`, `began`, `ended`), `measures`.
        best: the number of the winner.
        space: field to its `low`, `high`, `log` or `choice`.
        importances: field to its share of the values' variance; `below` the same by branch.
        note: how far the shares can be trusted.
        advice: dicts of `found` and `do`.
        rungs: dicts of `epoch`, `reached`, `stopped`, `best`.
        objectives: their names, when there are several; `front` the trials none other beats.
        rule: how the winner was chosen from the front.
    """

    metric: str
    trials: Sequence[Mapping[str, Any]]
    best: int | None = None
    space: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    importances: Mapping[str, float] = field(default_factory=dict)
    below: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    note: str = ""
    advice: Sequence[Mapping[str, str]] = ()
    rungs: Sequence[Mapping[str, Any]] = ()
    objectives: Sequence[str] = ()
    front: Sequence[int] = ()
    rule: str = ""


def view(data: SearchData) -> dict[str, Any]:
    """What the template of the search shows."""
    up = maximised(data.metric)
    axes = search_charts.ordered_axes(data.trials, data.space, data.importances)
    return {
        "search": data,
        "metric": data.metric,
        "history": charts.history(data.trials, data.metric),
        "trial_curves": charts.trial_curves(data.trials, data.metric),
        "importances": charts.bars(data.importances, "parameter importance"),
        "below": {name: charts.bars(shares, f"parameter importance below {name}")
                  for name, shares in data.below.items() if len(shares) > 1},
        "parallel": search_charts.parallel(data.trials, axes, data.metric, up),
        "slices": search_charts.slices(data.trials, axes, data.metric, data.best),
        "contour": search_charts.contour(data.trials, axes, data.metric, up, data.best),
        "pareto": search_charts.pareto(data.trials, data.objectives, data.front, data.best),
        "timeline": search_charts.timeline(data.trials),
        "board": leaderboard(data.trials, data.metric, data.best),
        "counts": _counts(data.trials),
    }


def render_search(title: str, data: SearchData) -> str:
    """A page of the search alone."""
    made = dt.datetime.now(dt.UTC).strftime("%d %B %Y, %H:%M UTC")
    return environment().get_template("search_page.html.j2").render(
        title=title, made=made, css=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
        found=view(data),
    )


def leaderboard(
    trials: Sequence[Mapping[str, Any]], metric: str, best: int | None
) -> dict[str, Any]:
    """`params` (the columns) and `rows` (the winner, then the best), at most LEADERS of them."""
    known = [t for t in trials if t.get("value") is not None]
    ranked = sorted(known, key=lambda t: float(t["value"]), reverse=maximised(metric))
    ranked = sorted(ranked, key=lambda t: t["number"] != best)[:LEADERS]
    names = list(dict.fromkeys(name for t in ranked for name in t.get("params", {})))
    rows = [
        {
            "number": t["number"], "state": t["state"], "value": exact(float(t["value"])),
            "epochs": len(t.get("values") or {}) or "–",
            "seconds": f"{float(t['seconds']):,.0f} s" if t.get("seconds") is not None else "–",
            "params": [_param(t.get("params", {}).get(name)) for name in names],
        }
        for t in ranked
    ]
    return {"params": names, "rows": rows, "total": len(known)}


def _param(value: Any) -> str:
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _counts(trials: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {
        state: count for state in ("complete", "pruned", "failed")
        if (count := sum(t["state"] == state for t in trials))
    }
