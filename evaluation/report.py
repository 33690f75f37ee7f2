"""One self-contained HTML page about a run: no scripts, no network, light and dark."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from . import charts
from .columns import columns
from .figures import figures
from .formats import exact, label
from .gates import Verdict
from .results import Evaluation, maximised
from .svg import number
from .words import findings, summary

TEMPLATES = Path(__file__).parent / "templates"
LEADERS = 12  # trials that the leaderboard shows
TASKS = {"binary": "binary classification", "multiclass": "multi-class classification",
         "regression": "regression"}


@dataclass(frozen=True)
class ReportData:
    """What a report tells.

    Args:
        title: the model and its version.
        spec_yaml: the resolved spec.
        history: one dict an epoch of the final training: `epoch`, `train_loss`, `val_loss`,
            `val_<metric>`, ...
        trials: one dict a trial: `number`, `state`, `value`, `params`, `values` (by epoch),
            `seconds`, `cause`.
        importances: parameter to its share of the search's variance.
        profile: the reference statistics of the training rows.
        lineage: ids, digests and versions; a list is folded away.
        notes: what was decided about the data, one sentence each.
    """

    title: str
    spec_yaml: str
    evaluation: Evaluation
    verdicts: Sequence[Verdict]
    history: Sequence[Mapping[str, Any]] = ()
    trials: Sequence[Mapping[str, Any]] = ()
    importances: Mapping[str, float] = field(default_factory=dict)
    profile: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


def render(data: ReportData) -> str:
    """The page. Everything in it comes from `data`; nothing is fetched when it is opened."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )
    environment.filters |= {"exact": exact, "number": number, "label": label}
    evaluation = data.evaluation
    views = columns(data.profile)
    plain = {k: v for k, v in data.lineage.items() if not isinstance(v, (list, dict))}
    return environment.get_template("report.html.j2").render(
        data=data,
        evaluation=evaluation,
        css=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
        task=TASKS[evaluation.task],
        refused=[v for v in data.verdicts if not v.passed],
        summary=summary(evaluation),
        findings=findings(evaluation, images=any(v.kind == "image" for v in views)),
        rivals=charts.rivals(evaluation),
        table=metric_rows(evaluation),
        figures=figures(evaluation),
        learning=charts.learning(data.history, evaluation.metric),
        history=charts.history(data.trials, evaluation.metric),
        trial_curves=charts.trial_curves(data.trials, evaluation.metric),
        importances=charts.bars(data.importances, "parameter importance"),
        board=leaderboard(data.trials, evaluation.metric),
        counts=_counts(data.trials),
        columns=views,
        lineage={k: "–" if v is None else str(v) for k, v in plain.items()},
        folded={k: v for k, v in data.lineage.items() if isinstance(v, (list, dict)) and v},
        made=dt.datetime.now(dt.UTC).strftime("%d %B %Y, %H:%M UTC"),
    )


@dataclass(frozen=True)
class MetricRow:
    """One line of the table: the model, then each rival with how it stands to the model."""

    name: str
    main: bool
    direction: str
    own: tuple[str, str]
    others: list[tuple[str, str, str]]  # value, difference, ahead | level | behind


def metric_rows(evaluation: Evaluation) -> list[MetricRow]:
    """The objective's metric first."""
    names = sorted(evaluation.metrics, key=lambda name: name != evaluation.metric)
    return [MetricRow(name, name == evaluation.metric, "↑" if maximised(name) else "↓",
                      _own(evaluation, name), list(_others(evaluation, name))) for name in names]


def _own(evaluation: Evaluation, name: str) -> tuple[str, str]:
    estimate = evaluation.metrics[name]
    return exact(estimate.value), f"{exact(estimate.low)} – {exact(estimate.high)}"


def _others(evaluation: Evaluation, name: str) -> Iterator[tuple[str, str, str]]:
    for rival in evaluation.rivals.values():
        if name not in rival.metrics or name not in rival.difference:
            yield "–", "", "level"
            continue
        gap = rival.difference[name]
        stands = "level" if not gap.clear else "behind" if rival.loses(name) else "ahead"
        gained = f"{exact(-gap.value, sign=True)}"
        yield exact(rival.metrics[name].value), gained, stands


def leaderboard(trials: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    """`params` (the columns) and `rows` (best first), at most LEADERS of them."""
    known = [t for t in trials if t.get("value") is not None]
    ranked = sorted(known, key=lambda t: float(t["value"]), reverse=maximised(metric))[:LEADERS]
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


